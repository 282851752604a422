"""The only reader of image files, and padding.

Training, evaluation, prediction, serving, the demo, videos and checks of data all come here. The rule, for every file:

* upright, as its orientation tag (EXIF) says and as viewers show it;
* the first image of an animation or of several pages;
* RGB of 8 bits: gray, palette, CMYK, YCbCr, HSV and black-and-white are converted; of 16 bits the upper 8 are kept;
  transparency is ignored in favor of the stored colors;
* numbers of 32 bits and floats have no known range and are refused, never saturated.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from kmax.geometry import fit

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "bmp", "dib", "gif", "tif", "tiff", "webp", "avif"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "j2k", "mpo", "tga"),
    )
)
"""Suffixes, in lower case, of the files that are read as images."""


class ReadableFolder(Protocol):
    """A folder or archive: the content of a file by name, and the name of that file in messages."""

    def read(self, name: str) -> bytes: ...
    def where(self, name: str) -> str: ...


class UnreadableImageError(ValueError):
    """An image file that is damaged or refused; training may skip it."""


class RefusedImageError(UnreadableImageError):
    """An undamaged image that is refused; the message gives the reason and the remedy."""


def open_image(path: str | Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, by the rule of this module.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: the file is damaged, no image, of an unknown range, or larger than Pillow deems safe.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no image {path}.")
    try:
        with path.open("rb") as file:
            return _decode(file, str(path))
    except Exception as error:  # decoders of foreign bytes raise whatever they like
        raise UnreadableImageError(f"{path} cannot be read as an image: {_reason(error)}.") from error


def read_image(folder: ReadableFolder, name: str) -> np.ndarray:
    """An image file of a folder or archive as (H, W, 3) uint8 RGB, by the rule of this module.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: as for `open_image`.
    """
    try:
        return _decode(io.BytesIO(folder.read(name)), folder.where(name))
    except FileNotFoundError:
        raise
    except RefusedImageError as error:
        raise RefusedImageError(f"The image {folder.where(name)} is refused: {_reason(error)}.") from error
    except Exception as error:  # decoders of foreign bytes raise whatever they like
        where, reason = folder.where(name), _reason(error)
        raise UnreadableImageError(f"The image {where} is damaged ({reason}): download or unpack it again.") from error


def _decode(file: IO[bytes], where: str) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if image.format != "MPO" and getattr(image, "is_animated", False):
                warnings.warn(f"{where} holds several images: the first is read.", stacklevel=3)
                image.seek(0)
            return to_rgb(image)
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise RefusedImageError(
            f"it has more than the {limit:.0f} megapixels that are read: make it smaller or cut it into tiles"
        ) from error


def _reason(error: Exception) -> str:
    """Why a file cannot be read, on one line and without a full stop."""
    if isinstance(error, UnidentifiedImageError):
        return "its type is unknown"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def to_rgb(image: Image.Image) -> np.ndarray:
    """A Pillow image of any mode as (H, W, 3) uint8 RGB, upright.

    Raises:
        RefusedImageError: pixels are numbers whose range is not known.
        ValueError: colors that Pillow cannot convert.
    """
    image.load()  # some formats tell their orientation only now, or rotate the image themselves
    deep = image.mode.startswith("I;16")
    if deep or (image.mode == "I" and image.format in ("PPM", "PNG")):  # Pillow widens these to 16 bits
        tags = getattr(image, "tag_v2", {})  # TIFF: bits per sample, and whether 0 is white
        bits = min(16, max(8, int(tags.get(258, (16,))[0]))) if deep else 16
        array = (np.asarray(image) >> (bits - 8)).clip(0, 255).astype(np.uint8)
        array = np.repeat((255 - array if tags.get(262) == 0 else array)[..., None], 3, axis=2)
    elif image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floats"
        raise RefusedImageError(f"its pixels are {kind} whose range is not known: save it with 8 or 16 bits per color")
    else:
        if image.mode in ("La", "RGBa") or (image.mode == "P" and "transparency" in image.info):
            image = image.convert({"La": "LA"}.get(image.mode, "RGBA"))
        array = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged metadata: the pixels are what counts
        orientation = 1
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def as_array(image: object) -> np.ndarray:
    """An image (H, W, 3) uint8 RGB from a path, a PIL image or such an array.

    Raises:
        ValueError: anything else, or no pixel.
    """
    if isinstance(image, (str, Path)):
        image = open_image(image)
    if isinstance(image, Image.Image):
        image = to_rgb(image)
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"An image is a path, a PIL image or a (H, W, 3) uint8 RGB array; this is {found}.")
    if not image.size:
        raise ValueError(f"An image has at least one pixel; this one is {image.shape[1]}×{image.shape[0]}.")
    return image


def is_turned(content: bytes) -> bool:
    """Whether the orientation tag of an image exchanges its height and width."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception:  # what cannot be read is not turned
        return False


_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KINDS = {0: "a grayscale PNG", 3: "a palette PNG", 4: "a grayscale PNG"}  # by the header's color type


def why_no_ids(content: bytes) -> str | None:
    """What a file is whose colors (R, G, B) can hardly have been written as segment ids, by its header; None for a PNG
    of 8-bit RGB. For messages about ids that fit nothing: a palette may spell ids, too."""
    if not content.startswith(_PNG):
        return "no PNG, and lossy formats change the ids"
    depth, color_type = content[24], content[25]
    if color_type in _PNG_KINDS:
        return f"{_PNG_KINDS[color_type]}, not one of RGB"
    return None if depth == 8 else f"a PNG of {depth} bits, not of 8"


def pad(image: np.ndarray, size: tuple[int, int], offset: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, np.ndarray]:
    """An image (h, w, 3) within (H, W, 3), at the top left or below and right by `offset`, and the mask (H, W) of its
    pixels."""
    height, width = image.shape[:2]
    top, left = offset
    valid = np.zeros(size, bool)
    valid[top : top + height, left : left + width] = True
    return pad_array(image, size, offset), valid


def pad_array(array: np.ndarray, size: tuple[int, int], offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    """An array (h, w, …) within (H, W, …) zeros; only the border is filled with zeros."""
    (height, width), (top, left) = array.shape[:2], offset
    bottom, right = top + height, left + width
    padded = np.empty((*size, *array.shape[2:]), array.dtype)
    padded[top:bottom, left:right] = array
    padded[:top], padded[bottom:], padded[top:bottom, :left], padded[top:bottom, right:] = 0, 0, 0, 0
    return padded


def resize_and_pad(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image prepared for evaluation: fitted into `size` (bilinear) and padded; with the mask of its pixels."""
    height, width = fit((image.shape[0], image.shape[1]), size)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return pad(np.asarray(resized), size)

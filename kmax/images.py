"""THE reader of pictures, and padding.

Training, evaluation, prediction, serving, the demo, videos and checks of data all come here.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kmax.geometry import fit

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"))


class ReadableFolder(Protocol):
    """A folder or archive: the content of a file by name, and how messages call that file."""

    def read(self, name: str) -> bytes: ...
    def where(self, name: str) -> str: ...


class UnreadableImageError(ValueError):
    """An image file that is damaged; training may skip it."""


def open_image(path: str | Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, turned upright as its EXIF data say; 16 bits are reduced to 8.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: the file is damaged, no image, or larger than Pillow deems safe.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no image {path}.")
    try:
        with Image.open(path) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "its type is unknown" if isinstance(error, UnidentifiedImageError) else str(error).rstrip(".")
        raise UnreadableImageError(f"{path} cannot be read as an image: {reason}.") from error


def to_rgb(image: Image.Image) -> np.ndarray:
    """A Pillow image of any mode as (H, W, 3) uint8 RGB."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.array(image.convert("RGB"))


def read_image(folder: ReadableFolder, name: str) -> Image.Image:
    """An image file as RGB, greyscale and CMYK converted.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: the file is truncated or no image.
    """
    try:
        image = Image.open(io.BytesIO(folder.read(name)))
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except FileNotFoundError:
        raise
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        where = folder.where(name)
        raise UnreadableImageError(f"The image {where} is damaged ({error}): download or unpack it again.") from error


def pad(image: np.ndarray, size: tuple[int, int], offset: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, np.ndarray]:
    """An image (h, w, 3) within (H, W, 3), at the top left or below and right of it by `offset`, and the mask (H, W) of
    its pixels."""
    height, width = image.shape[:2]
    top, left = offset
    valid = np.zeros(size, bool)
    valid[top : top + height, left : left + width] = True
    return pad_array(image, size, offset), valid


def pad_array(array: np.ndarray, size: tuple[int, int], offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    """An array (h, w, …) within (H, W, …) zeros, which are written only where they are seen."""
    (height, width), (top, left) = array.shape[:2], offset
    bottom, right = top + height, left + width
    padded = np.empty((*size, *array.shape[2:]), array.dtype)
    padded[top:bottom, left:right] = array
    padded[:top], padded[bottom:], padded[top:bottom, :left], padded[top:bottom, right:] = 0, 0, 0, 0
    return padded


def resize_and_pad(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image as it is evaluated: fitted into `size` (bilinear) and padded; with the mask of its pixels."""
    height, width = fit((image.shape[0], image.shape[1]), size)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return pad(np.asarray(resized), size)

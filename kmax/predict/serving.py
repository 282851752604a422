"""Everything around the network that serving an exported model needs, with NumPy and Pillow only: no torch, no kmax.

`prepare` makes the model's inputs from images, `panoptic` a segmentation from its outputs. The definitions are those
of `kmax.inference.postprocess`; this file may be copied into a service as it is.

Letters: B batch, N queries, K classes without void, h×w mask logits, H×W padded input, H0×W0 image, T taps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

_STRIP_ELEMENTS = 2**22


class RefusedImageError(ValueError):
    """An image that is refused; the message gives the reason and the remedy."""


class SegmentInfo(NamedTuple):
    """A segment of a result: its value in the map, its class index and its score in 0 … 1."""

    id: int
    label: int
    score: float


@dataclass(frozen=True)
class Description:
    """The description that an exported model carries: input `size` (H, W), `names` and `is_thing` of the K classes, the
    thresholds it was trained with, as `panoptic` takes them, and whether it is `postprocessed`: takes one image as it
    is and returns segments."""

    size: tuple[int, int]
    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    thresholds: dict[str, Any]
    postprocessed: bool = False

    def to_json(self) -> str:
        """The text that an exported file carries."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Description:
        """From the text that an exported file carries."""
        fields = json.loads(text)
        height, width = fields["size"]
        names, is_thing = tuple(fields["names"]), tuple(fields["is_thing"])
        return cls((height, width), names, is_thing, fields["thresholds"], fields.get("postprocessed", False))


def open_image(path: str | Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, by the rule of `kmax.images`: upright, of 8 bits, the first of several.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: damaged, not an image, or refused.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no image {path}.")
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except Exception as error:  # decoders of foreign bytes raise whatever they like
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{path} cannot be read as an image: {reason or type(error).__name__}.") from error


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


def prepare(images: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The two inputs of an exported model, from (H0, W0, 3) uint8 RGB images of any sizes.

    Returns:
        Images (B, H, W, 3) uint8, each resized to fit `size` and padded on the right and at the bottom; and
        `content` (B, 2) int64, the rows and columns of each that are not padding.
    """
    padded = np.zeros((len(images), *size, 3), np.uint8)
    content = np.zeros((len(images), 2), np.int64)
    for target, rows_columns, image in zip(padded, content, images, strict=True):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"An image is a (H, W, 3) uint8 RGB array; this is {image.dtype} {image.shape}.")
        height, width = content_size((image.shape[0], image.shape[1]), size)
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        target[:height, :width] = np.asarray(resized)
        rows_columns[:] = height, width
    return padded, content


def content_size(original: tuple[int, int], padded: tuple[int, int]) -> tuple[int, int]:
    """The largest size (height, width) with the proportions of `original` that fits into `padded`."""
    scale = min(padded[0] / original[0], padded[1] / original[1])
    height, width = (min(max(1, round(o * scale)), p) for o, p in zip(original, padded, strict=True))
    return height, width


def panoptic(
    class_logits: np.ndarray,
    mask_logits: np.ndarray,
    is_thing: Sequence[bool],
    padded: tuple[int, int] | None = None,
    original: tuple[int, int] | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    thing_threshold: float = 0.7,
    stuff_threshold: float = 0.5,
    overlap: float = 0.8,
    pixel_threshold: float = 0.4,
    method: str = "mask_wise",
    thing_area: int = 0,
    stuff_area: int = 0,
    min_area: int = 0,
) -> tuple[np.ndarray, list[SegmentInfo]]:
    """Panoptic segmentation of one image from the logits (N, K+1), void last, and (N, h, w).

    Args:
        padded, original: (H, W) of the network's input and (H0, W0) of the image; without them the result has
            size h×w.
        alpha … min_area: see `kmax.inference.options.Thresholds`; the defaults are those of COCO.

    Returns:
        The map (H0, W0) int32, 0 = void, and its segments, numbered from 1 by descending score.
    """
    classes = _softmax(class_logits.astype(np.float32))[:, :-1]
    label, probability = classes.argmax(1), classes.max(1).astype(np.float64)
    thing = np.asarray(is_thing, bool)[label]
    thresholds = np.where(thing, thing_threshold, stuff_threshold)
    if method == "pixel_wise":
        slots = _kept_slots(mask_logits, probability >= thresholds, pixel_threshold, padded)
        segment_of, segments = _limited_segments(label, probability, thing, slots, thing_area, stuff_area)
        return _without_specks(_to_original(segment_of[slots], padded, original), segments, min_area)
    size, claims = _claims(mask_logits, pixel_threshold, padded, original)
    confidence = np.array([p.mean(dtype=np.float64) if len(p) else 0.0 for _, p in claims])
    scores = probability**alpha * confidence**beta
    order = [query for query in np.argsort(-scores, kind="stable") if probability[query] > thresholds[query]]
    painted = _painted(size, [claims[query][0] for query in order], label[order], thing[order], scores[order], overlap)
    return _without_specks(*painted, min_area)


def _painted(
    size: tuple[int, int],
    claims: Sequence[np.ndarray],
    label: np.ndarray,
    thing: np.ndarray,
    scores: np.ndarray,
    overlap: float,
) -> tuple[np.ndarray, list[SegmentInfo]]:
    """The map and its segments from the pixels that masks claim, the best first; stuff of one class is one segment."""
    result = np.zeros(size[0] * size[1], np.int32)
    segments: list[SegmentInfo] = []
    stuff: dict[int, int] = {}
    for pixels, kind, is_thing, score in zip(claims, label.tolist(), thing.tolist(), scores.tolist(), strict=True):
        free = pixels[result[pixels] == 0]
        if not len(free) > overlap * len(pixels):
            continue
        number = len(segments) + 1 if is_thing else stuff.setdefault(kind, len(segments) + 1)
        result[free] = number
        if number > len(segments):
            segments.append(SegmentInfo(number, kind, score))
    return result.reshape(size), segments


def _without_specks(
    result: np.ndarray, segments: list[SegmentInfo], min_area: int
) -> tuple[np.ndarray, list[SegmentInfo]]:
    """Segments below `min_area` pixels become void; the others are numbered from 1 in their order."""
    if not min_area:
        return result, segments
    highest = max((segment.id for segment in segments), default=0)
    area = np.bincount(result.ravel(), minlength=highest + 1)
    large = [segment for segment in segments if area[segment.id] >= min_area]
    number = np.zeros(highest + 1, np.int32)
    number[[segment.id for segment in large]] = np.arange(1, len(large) + 1)
    return number[result], [SegmentInfo(i, segment.label, segment.score) for i, segment in enumerate(large, 1)]


def _claims(
    mask_logits: np.ndarray, threshold: float, padded: tuple[int, int] | None, original: tuple[int, int] | None
) -> tuple[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]]:
    """The result's size, and for each query the pixels (flat indices) where p > threshold, with their p."""
    found: list[list[np.ndarray]] = [[], [], []]
    start = 0
    cells = (mask_logits.shape[1], mask_logits.shape[2])
    size = original if padded is not None and original is not None else cells
    for strip in _probabilities(mask_logits, padded, original):
        pixel, query = (strip > threshold).nonzero()
        for parts, part in zip(found, (query, pixel + start, strip[pixel, query]), strict=True):
            parts.append(part)
        start += len(strip)
    queries, pixels, values = (np.concatenate(parts) for parts in found)
    order = np.argsort(queries, kind="stable")
    ends = np.cumsum(np.bincount(queries, minlength=len(mask_logits)))[:-1]
    return size, list(zip(np.split(pixels[order], ends), np.split(values[order], ends), strict=True))


def _kept_slots(
    mask_logits: np.ndarray, detected: np.ndarray, threshold: float, padded: tuple[int, int] | None
) -> np.ndarray:
    """The slot (H, W) of each pixel that keeps it, N where none does."""
    size, strips = padded or (mask_logits.shape[1], mask_logits.shape[2]), []
    for logits in _resized(mask_logits, padded, padded):
        slot, top = logits.argmax(1), logits.max(1, keepdims=True)
        share = 1 / np.maximum((np.exp(logits - top) * detected).sum(1), 1e-30)
        strips.append(np.where(detected[slot] & (share > threshold), slot, len(detected)))
    return np.concatenate(strips).reshape(size)


def _limited_segments(
    label: np.ndarray, probability: np.ndarray, thing: np.ndarray, slots: np.ndarray, thing_area: int, stuff_area: int
) -> tuple[np.ndarray, list[SegmentInfo]]:
    """The segment of each slot, 0 for none and for pixels without a slot, and the segments that are large enough."""
    area = np.bincount(slots.ravel(), minlength=len(label) + 1)
    of_class = np.bincount(label[~thing], area[:-1][~thing], minlength=label.max() + 1)
    large = np.where(thing, area[:-1] >= thing_area, of_class[label] >= stuff_area) & (area[:-1] > 0)
    number, segments, stuff = np.zeros(len(label) + 1, np.int32), list[SegmentInfo](), dict[int, int]()
    for slot in np.argsort(-probability, kind="stable"):
        if large[slot]:
            kind = int(label[slot])
            number[slot] = len(segments) + 1 if thing[slot] else stuff.setdefault(kind, len(segments) + 1)
            if number[slot] > len(segments):
                segments.append(SegmentInfo(len(segments) + 1, kind, float(probability[slot])))
    return number, segments


def _to_original(values: np.ndarray, padded: tuple[int, int] | None, original: tuple[int, int] | None) -> np.ndarray:
    """Values (H, W) of the padded image cut to the content and resized, nearest, to the original (H0, W0)."""
    if padded is None or original is None:
        return values
    pairs = zip(content_size(original, padded), original, strict=True)
    rows, columns = (
        (2 * np.arange(target) * (length - 1) + max(target - 1, 1)) // (2 * max(target - 1, 1))
        for length, target in pairs
    )
    return values[rows][:, columns]


def _probabilities(
    mask_logits: np.ndarray, padded: tuple[int, int] | None, original: tuple[int, int] | None
) -> Iterator[np.ndarray]:
    """Softmax over queries of the resized mask logits, in strips of pixels (pixels, N) from top to bottom."""
    return map(_softmax, _resized(mask_logits, padded, original))


def _resized(
    mask_logits: np.ndarray, padded: tuple[int, int] | None, original: tuple[int, int] | None
) -> Iterator[np.ndarray]:
    """The resized mask logits, in strips of pixels (pixels, N) from top to bottom."""
    values = np.ascontiguousarray(mask_logits.transpose(1, 2, 0), dtype=np.float32)  # (h, w, N)
    if padded is None or original is None:
        yield values.reshape(-1, values.shape[2])
        return
    aligned = padded[1] % 2 == 1  # as in the model: for widths 32k+1 cells sit on pixels 0, s, 2s, …
    content = content_size(original, padded)
    rows, columns = (_taps(values.shape[i], padded[i], content[i], original[i], aligned) for i in (0, 1))
    step = max(1, _STRIP_ELEMENTS // (original[1] * values.shape[2]))
    for start in range(0, original[0], step):
        some_rows = _Taps(rows.cells[start : start + step], rows.weight[start : start + step])
        strip = _resample(_resample(values, 0, some_rows), 1, columns)
        yield strip.reshape(-1, strip.shape[2])


def _softmax(logits: np.ndarray) -> np.ndarray:
    """The softmax over the last axis."""
    result: np.ndarray = np.exp(logits - logits.max(-1, keepdims=True))
    result /= result.sum(-1, keepdims=True)
    return result


class _Taps(NamedTuple):
    """Output o of a resampled axis is Σ_t `weight`[o, t] · input[`cells`[o, t]]; both are (o, T)."""

    cells: np.ndarray
    weight: np.ndarray


@lru_cache(maxsize=32)
def _taps(length: int, padded: int, content: int, original: int, aligned: bool) -> _Taps:
    """Composed resizing: from `length` cells to the padded size, cropped to the content, to the original size."""
    matrix = _bilinear(length, padded, aligned)
    if content != padded or content != original:
        matrix = _bilinear(content, original, aligned) @ matrix[:content]
    used = matrix != 0
    first, last = used.argmax(1), length - 1 - used[:, ::-1].argmax(1)
    cells = first[:, None] + np.arange((last - first).max() + 1)
    inside = cells < length
    cells = np.minimum(cells, length - 1)
    return _Taps(cells, (np.take_along_axis(matrix, cells, 1) * inside).astype(np.float32))


def _bilinear(length: int, target: int, aligned: bool) -> np.ndarray:
    """Linear interpolation from `length` to `target` cells as a matrix (target, length) float64."""
    position = np.arange(target, dtype=np.float64)
    if aligned:
        position *= (length - 1) / max(target - 1, 1)
    else:
        position = ((position + 0.5) * (length / target) - 0.5).clip(min=0)
    low = position.astype(int).clip(max=length - 1)
    fraction = position - low
    matrix = np.zeros((target, length))
    np.add.at(matrix, (np.arange(target), low), 1 - fraction)
    np.add.at(matrix, (np.arange(target), np.minimum(low + 1, length - 1)), fraction)
    return matrix


def _resample(values: np.ndarray, axis: int, taps: _Taps) -> np.ndarray:
    """Replace `axis` (0 or 1) of `values` (rows, columns, N) by its resampled values."""
    weight = taps.weight[:, :, None, None] if axis == 0 else taps.weight[:, :, None]
    result: np.ndarray = values.take(taps.cells[:, 0], axis) * weight[:, 0]
    for tap in range(1, taps.cells.shape[1]):
        result += values.take(taps.cells[:, tap], axis) * weight[:, tap]
    return result

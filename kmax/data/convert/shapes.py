"""Shapes of all kinds as run-length codes, by pycocotools: the reference rasterization of COCO.

Points are (x, y) in pixels; a code covers an image of size (H, W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco

from kmax.data.convert.source import Record, Size
from kmax.data.convert.source import Rle as Rle

CORNERS_OF_A_CIRCLE = 128
FAR = 16.0  # times the image's size: points beyond are pulled in, since rasterization walks along every edge


def polygons(parts: Sequence[Sequence[float]], size: Size) -> Rle | None:
    """The union of polygons, each x0, y0, x1, y1, …; None if none has three finite points."""
    whole = []
    for part in parts:
        flat = np.asarray(part, np.float64).ravel()
        if len(flat) >= 6 and len(flat) % 2 == 0 and np.isfinite(flat).all():
            limit = FAR * max(size)
            whole.append(flat.clip(-limit, limit).tolist())
    merged: Rle | None = coco.merge(coco.frPyObjects(whole, *size)) if whole else None
    return merged


def rectangle(points: Sequence[Sequence[float]], size: Size) -> Rle | None:
    """The box around two opposite corners, or around any number of points."""
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    if len(corners) < 2:
        return None
    (left, top), (right, bottom) = corners.min(0), corners.max(0)
    return polygons([[left, top, right, top, right, bottom, left, bottom]], size)


def ellipse(center: Sequence[float], radii: Sequence[float], size: Size, degrees: float = 0) -> Rle | None:
    """An ellipse with horizontal and vertical radius, turned clockwise by `degrees`."""
    angle = np.linspace(0, 2 * np.pi, CORNERS_OF_A_CIRCLE, endpoint=False)
    x, y = radii[0] * np.cos(angle), radii[1] * np.sin(angle)
    rotation = math.radians(degrees)
    points = np.stack(
        [
            center[0] + x * math.cos(rotation) - y * math.sin(rotation),
            center[1] + x * math.sin(rotation) + y * math.cos(rotation),
        ],
        1,
    )
    return polygons([points.ravel().tolist()], size)


def bitmap(mask: np.ndarray, left: int, top: int, size: Size) -> Rle:
    """A mask (h, w), nonzero inside, with its upper left corner at (left, top); parts outside the image are cut off."""
    whole = np.zeros(size, np.uint8, order="F")
    rows = slice(max(0, top), max(0, min(size[0], top + mask.shape[0])))
    columns = slice(max(0, left), max(0, min(size[1], left + mask.shape[1])))
    inside = mask[
        rows.start - top : max(rows.start, rows.stop) - top,
        columns.start - left : max(columns.start, columns.stop) - left,
    ]
    whole[rows, columns][inside != 0] = 1
    encoded: Rle = coco.encode(whole)
    return encoded


def run_lengths(code: Record, size: Size) -> Rle:
    """COCO's two run-length codes: `counts` is a list of numbers or the compressed string.

    Raises:
        ValueError: the code is of another size, or contradicts itself.
    """
    declared, counts = [int(n) for n in code["size"]], code["counts"]
    if declared != list(size):
        raise ValueError(f"a run-length code is {declared[1]}×{declared[0]} but its image is {size[1]}×{size[0]}")
    if isinstance(counts, str | bytes):
        text = counts.encode() if isinstance(counts, str) else counts
        rle: Rle = {"size": declared, "counts": text}
        counts = _uncompressed(text)
    else:
        rle = {}
    runs = np.asarray(counts, np.int64)
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(f"a run-length code covers {runs.sum()} pixels of an image of {size[0] * size[1]}")
    return rle or dict(coco.frPyObjects({"size": declared, "counts": runs.tolist()}, *size))


def _uncompressed(text: bytes) -> list[int]:
    """The runs of a compressed code (five bits a byte, differences to the run before the last); decoded here since
    pycocotools trusts whatever it is given."""
    runs: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more and position < len(text):
            bits = text[position] - 48
            value |= (bits & 31) << shift
            more, shift, position = bool(bits & 32), shift + 5, position + 1
            if not more and bits & 16:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def area(rle: Rle) -> int:
    """Pixels of a code."""
    return int(coco.area(rle))


def decode(rle: Rle) -> np.ndarray:
    """The mask (H, W) bool of a code."""
    mask: np.ndarray = coco.decode(rle)
    return mask.view(bool)

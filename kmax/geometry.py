"""Sizes of images and maps, and the corner rule: how cells of a map correspond to the pixels of an image.

Imports only the standard library, so that serving can use it. Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def align_corners(width: int) -> bool:
    """Whether bilinear resizing aligns the corners: for odd widths (32k+1), where cells sit on pixels 0, s, 2s, …

    `width` may be that of the padded image or of any map made of it: both are odd, or both are even.
    """
    return width % 2 == 1


def fit(original: Sequence[int], box: Sequence[float]) -> tuple[int, int]:
    """The size of an image resized, keeping its proportions, so that it just fits into `box`; at least one pixel."""
    scale = min(box[0] / original[0], box[1] / original[1])
    return max(1, round(original[0] * scale)), max(1, round(original[1] * scale))


@dataclass(frozen=True)
class Sizes:
    """The sizes (height, width) an image went through: `original`, resized to `content`, padded to `padded`."""

    padded: tuple[int, int]
    content: tuple[int, int]
    original: tuple[int, int]

    @classmethod
    def fit(cls, padded: Sequence[int], original: Sequence[int]) -> Sizes:
        """The sizes of an image resized to the largest size with its proportions that fits into `padded`."""
        height, width = fit(original, padded)
        return cls((padded[0], padded[1]), (min(height, padded[0]), min(width, padded[1])), (original[0], original[1]))


def content_cells(sizes: Sizes, cells: Sequence[int]) -> tuple[int, int]:
    """How many rows and columns of a feature or logit map (h, w) = `cells` are not padding."""
    rows, columns = (
        max(1, min(n, round(content / padded * n)))
        for n, content, padded in zip(cells, sizes.content, sizes.padded, strict=True)
    )
    return rows, columns

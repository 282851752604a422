"""Masks as runs: a compact form of many masks of a large image.

Pixels are counted down the columns, one column after another, as COCO's run-length encoding does. H×W is the size of an
image, R a number of runs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RunLengths:
    """A mask of `size` (H, W): from pixel `starts`[r] on `lengths`[r] pixels are True; both (R,) int64, ascending, the
    runs neither empty nor touching."""

    size: tuple[int, int]
    starts: np.ndarray
    lengths: np.ndarray

    @property
    def area(self) -> int:
        """How many pixels are True."""
        return int(self.lengths.sum())

    @classmethod
    def of(cls, mask: np.ndarray) -> RunLengths:
        """The runs of a mask (H, W) bool."""
        return encode(mask[None].astype(np.int8), (1,))[1]

    def counts(self) -> list[int]:
        """COCO's uncompressed form: alternating lengths of False and True, beginning with False."""
        ends = self.starts + self.lengths
        gaps = self.starts - np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        pairs = np.stack([gaps, self.lengths], 1).ravel().tolist()
        rest = self.size[0] * self.size[1] - (int(ends[-1]) if len(ends) else 0)
        return [*pairs, rest] if rest else pairs

    def decode(self) -> np.ndarray:
        """The mask (H, W) bool."""
        flat = np.zeros(self.size[0] * self.size[1], bool)
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            flat[start : start + length] = True
        return np.ascontiguousarray(flat.reshape(self.size[1], self.size[0]).T)


def runs(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All runs of equal values of a map (H, W): values, starts and lengths (R,), covering it without a gap."""
    flat = np.ascontiguousarray(plane.T).ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    return flat[starts], starts, np.diff(starts, append=flat.size)


def encode(planes: np.ndarray, values: Collection[int]) -> dict[int, RunLengths]:
    """For each of `values`, the mask of the pixels that have it in one of the `planes` (k, H, W)."""
    wanted = np.unique(np.fromiter(values, np.int64))
    size = (planes.shape[1], planes.shape[2])
    parts = []
    for plane in planes:
        value, start, length = runs(plane)
        kept = np.isin(value, wanted)
        parts.append(np.stack([value[kept].astype(np.int64), start[kept], length[kept]]))
    value, start, length = np.concatenate(parts, 1) if parts else np.zeros((3, 0), np.int64)
    order = np.lexsort((start, value))
    value, start, end = value[order], start[order], (start + length)[order]
    # Runs of two planes may touch: they are one.
    first = np.ones(len(value), bool)
    first[1:] = (value[1:] != value[:-1]) | (start[1:] != end[:-1])
    last = np.append(first[1:], True)[: len(first)]
    value, start, end = value[first], start[first], end[last]
    cuts = np.searchsorted(value, [wanted, wanted + 1])
    return {int(v): RunLengths(size, start[a:b], (end - start)[a:b]) for v, a, b in zip(wanted, *cuts, strict=True)}


def shared_pixels(mask: RunLengths, starts: np.ndarray, column: np.ndarray, columns: int) -> np.ndarray:
    """Pixels (columns,) that a mask shares with each kind of a map. The runs of the map have `starts` and kinds
    `column`, both (R,), as `runs` returns them."""
    begin, end = mask.starts, mask.starts + mask.lengths
    first, stop = np.searchsorted(starts, begin, "right") - 1, np.searchsorted(starts, end, "left")
    count = stop - first
    owner = np.repeat(np.arange(len(begin)), count)
    run = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count) + first[owner]
    ends = np.append(starts[1:], mask.size[0] * mask.size[1])
    shared = np.minimum(end[owner], ends[run]) - np.maximum(begin[owner], starts[run])
    return np.bincount(column[run], shared, minlength=columns).astype(np.int64)

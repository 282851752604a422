"""Arithmetic on maps of segment ids, one byte per pixel wherever that is enough.

M is the number of segments, H×W the size of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from kmax.structures import Sample

LARGEST_TABLE = 1 << 24  # ids of a PNG have three bytes


def positions(segment_map: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """1 + the position in `ids` of every pixel's id, 0 for other ids; (H, W) uint8, int32 if M > 255.

    `ids` are distinct and > 0.
    """
    dtype = smallest_dtype(len(ids))
    if not len(ids):
        return np.zeros(segment_map.shape, dtype)
    largest = max(int(segment_map.max(initial=0)), max(ids, default=0))
    if largest < LARGEST_TABLE:
        table: np.ndarray = np.zeros(
            largest + 1, dtype
        )  # almost all of this table stays untouched, so it costs nothing
        table[list(ids)] = np.arange(1, len(ids) + 1)
        return lookup(table, segment_map)
    order = np.argsort(ids)
    ordered = np.asarray(ids)[order]
    slot = np.searchsorted(ordered, segment_map).clip(max=len(ids) - 1)
    return np.where(ordered[slot] == segment_map, order[slot] + 1, 0).astype(dtype)


def smallest_dtype(largest: int) -> type:
    """The type of a map with values up to `largest`."""
    return np.uint8 if largest < 256 else np.int32


def lookup(table: np.ndarray, segment_map: np.ndarray) -> np.ndarray:
    """table[segment_map], with a fast path if both are bytes."""
    if segment_map.dtype == table.dtype == np.uint8:
        full = np.zeros(256, np.uint8)
        full[: len(table)] = table
        return np.asarray(cv2.LUT(segment_map, full))
    values: np.ndarray = table[segment_map]
    return values


def present(segment_map: np.ndarray) -> list[int]:
    """The values that occur in a map, ascending."""
    if segment_map.dtype != np.uint8:
        found: list[int] = np.unique(segment_map).tolist()
        return found
    counts = cv2.calcHist([segment_map], [0], None, [256], [0, 256])
    found = np.flatnonzero(counts).tolist()
    return found


def compact(sample: Sample) -> Sample:
    """The same sample with segments 1 … M, in the smallest type."""
    segment_map = positions(sample.segment_map, [segment.id for segment in sample.segments])
    segments = tuple(replace(segment, id=n) for n, segment in enumerate(sample.segments, 1))
    return replace(sample, segment_map=segment_map, segments=segments)

"""How many pixels the segments of two maps share: the basis of all metrics on maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kmax.structures import PanopticMap, Sample, Segment

_PIECE = 2**22  # pixels that are compared at a time


class Table:
    """Segments as arrays that can be looked up by id."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.ids = np.array([s.id for s in segments], dtype=np.int64)
        self.label = np.array([s.label for s in segments], dtype=np.int64)
        self.crowd = np.array([s.crowd for s in segments], dtype=bool)
        self.order = np.argsort(self.ids, kind="stable")

    def index(self, ids: np.ndarray) -> np.ndarray:
        """The row of each of `ids` in the table; −1 if there is none."""
        if not len(self.ids):
            return np.full(ids.shape, -1)
        position = np.searchsorted(self.ids, ids, sorter=self.order).clip(max=len(self.ids) - 1)
        found = self.order[position]
        return np.where(self.ids[found] == ids, found, -1)

    def sums(self, index: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sum of `values` per segment; those at index −1 are left out."""
        return np.bincount(index + 1, values, minlength=len(self.ids) + 1)[1:]


def overlaps(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of ids (int32, H×W each) that share a pixel: true ids, predicted ids, shared pixels (float64), each
    (pairs,).

    Maps consist of runs of equal pixels, so only the runs are sorted: some thousands instead of H·W. Large maps are
    taken in pieces.
    """
    true, other = truth.ravel(), predicted.ravel()
    found = [_runs(true[i : i + _PIECE], other[i : i + _PIECE]) for i in range(0, max(1, true.size), _PIECE)]
    keys, lengths = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(keys, kind="stable")  # merges what is sorted in part, as runs are
    keys = keys[order]
    first = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))  # of each pair
    pairs, areas = keys[first], np.add.reduceat(lengths[order], first).astype(np.float64)
    return pairs >> 32, (pairs & 0xFFFFFFFF).astype(np.uint32).astype(np.int32).astype(np.int64), areas


def _runs(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The runs of equal pairs of values: both values in one, and the lengths."""
    new = (truth[1:] != truth[:-1]) | (predicted[1:] != predicted[:-1])
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    key = truth[starts].astype(np.int64) << 32 | predicted[starts].astype(np.int64) & 0xFFFFFFFF
    return key, np.diff(starts, append=len(truth))


def name_of(sample: Sample) -> str:
    """The name of an image in messages."""
    return str(sample.file_name or sample.image_id)


def check_size(truth: Sample, size: Sequence[int]) -> None:
    """Raise a ValueError if a prediction of this size (H, W) doesn't fit its image."""
    if truth.segment_map.shape != tuple(size):
        raise ValueError(
            f"The prediction for {name_of(truth)} has size {tuple(size)}, its ground truth {truth.segment_map.shape}: "
            "resize the prediction to the original size first."
        )


def check_labels(labels: np.ndarray, num_classes: int, truth: Sample) -> None:
    """Raise a ValueError if a label lies outside 0 … `num_classes` − 1."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"{name_of(truth)} has a label outside 0 … {num_classes - 1}: give metric and data the same categories."
        )


def check_segments(prediction: PanopticMap, predicted_ids: np.ndarray, truth: Sample) -> None:
    """Raise a ValueError if the map of a prediction and its segments disagree."""
    described, drawn = {s.id for s in prediction.segments}, set(predicted_ids.tolist()) - {0}
    if described != drawn:
        odd = min(described ^ drawn)
        where = "its segments but not in its map" if odd in described else "its map but not among its segments"
        raise ValueError(
            f"The prediction for {name_of(truth)} has segment {odd} in {where}: both must list the same ids."
        )

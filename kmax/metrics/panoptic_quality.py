"""Panoptic quality (Kirillov et al., CVPR 2019), equal to the published evaluation: crowd, void and predicted void.

A prediction and a ground-truth segment of one class match at IoU > 0.5, where the union leaves out what the
prediction covers of void. A prediction without a match counts as false unless more than half of it lies on void
and on crowd of its class; crowd is neither matched nor missed.

Boundary PQ (Cheng et al., CVPR 2021) replaces that IoU by the smaller of itself and the boundary IoU, the IoU of those
pixels of both segments within d pixels of their own contour; pixels beyond the image count as outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import maximum_filter1d, minimum_filter1d
from torch import Tensor
from torchmetrics import Metric

from kmax.metrics.overlaps import Table, check_labels, check_segments, check_size, overlaps
from kmax.structures import PanopticMap, Sample

_PIECE = 2**22  # pixels whose boundaries are found at a time
_MANTISSA, _LOW = 53, 27  # bits: an IoU in (½, 1] is a multiple of 2^−53, kept in two integers of 26 and 27 bits


@dataclass  # none of these is frozen: torchmetrics refuses to hand out frozen dataclasses
class Quality:
    """Panoptic = segmentation × recognition quality in percent, and the counts behind them.

    For several classes the qualities are means over those that occur (tp + fp + fn > 0), the counts sums. All are 0
    where nothing occurs.
    """

    pq: float
    sq: float
    rq: float
    tp: int
    fp: int
    fn: int


@dataclass
class PanopticQualityResult:
    """Panoptic quality of all classes, of things, of stuff, and of each class in the order of labels."""

    all: Quality
    things: Quality
    stuff: Quality
    per_class: tuple[Quality, ...]


class PanopticQuality(Metric):
    """Panoptic quality of predictions against samples.

    The states are integers, so that neither the order of images nor the number of ranks changes a digit.

    Args:
        is_thing: for each of the K classes.
        dilation_ratio: None, or for boundary PQ the width d of boundaries as a fraction of the image's diagonal.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    iou: Tensor  # (K, 2) int64: the sum of IoU in units of 2^−53, as upper and lower words
    found: Tensor  # (K, 3) int64: true positives, false positives, false negatives

    def __init__(self, is_thing: Sequence[bool], dilation_ratio: float | None = None) -> None:
        super().__init__()
        if dilation_ratio is not None and not 0 < dilation_ratio < 1:
            raise ValueError(f"The dilation ratio of boundaries is {dilation_ratio} but must lie between 0 and 1.")
        self.is_thing, self.dilation_ratio = tuple(map(bool, is_thing)), dilation_ratio
        for name, columns in (("iou", 2), ("found", 3)):
            zeros = torch.zeros(len(self.is_thing), columns, dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(self, predictions: Sequence[PanopticMap], ground_truths: Sequence[Sample]) -> None:
        """Count the segments of some images.

        Raises:
            ValueError: maps of different size; a prediction whose map and segments disagree; an unknown label.
        """
        for prediction, truth in zip(predictions, ground_truths, strict=True):
            iou, found = count_segments(prediction, truth, len(self.is_thing), self.dilation_ratio)
            self.iou += torch.as_tensor(iou, device=self.iou.device)
            self.found += torch.as_tensor(found, device=self.found.device)

    @property
    def counts(self) -> np.ndarray:
        """(K, 4) float64: sum of IoU, true positives, false positives, false negatives."""
        return _counts(self.iou.tolist(), self.found.cpu().numpy())

    def compute(self) -> PanopticQualityResult:
        """The quality of all images so far, on all ranks."""
        counts = self.counts
        thing = np.array(self.is_thing, dtype=bool)
        return PanopticQualityResult(
            all=_quality(counts),
            things=_quality(counts[thing]),
            stuff=_quality(counts[~thing]),
            per_class=tuple(_quality(row[None]) for row in counts),
        )


def image_quality(prediction: PanopticMap, truth: Sample, num_classes: int) -> Quality:
    """The quality of one image: the mean over the classes that occur in its ground truth or its prediction.

    Raises:
        ValueError: as `PanopticQuality.update`.
    """
    iou, found = count_segments(prediction, truth, num_classes)
    return _quality(_counts(iou.tolist(), found))


def _counts(iou: Sequence[Sequence[int]], found: np.ndarray) -> np.ndarray:
    """(K, 4) float64 of the upper and lower words of IoU, K pairs, and the counts (K, 3) of segments."""
    sums = [(high << _LOW) + low for high, low in iou]  # exact: Python's integers are unbounded
    return np.column_stack([[total / 2**_MANTISSA for total in sums], found])


def _quality(counts: np.ndarray) -> Quality:
    """Mean over classes of counts (k, 4), in percent."""
    iou, tp, fp, fn = counts[counts[:, 1:].any(1)].T
    rq = tp / (tp + (fp + fn) / 2)
    sq = iou / np.maximum(tp, 1)
    pq, sq, rq = (100 * float(x.mean()) if len(x) else 0.0 for x in (rq * sq, sq, rq))
    return Quality(pq, sq, rq, int(tp.sum()), int(fp.sum()), int(fn.sum()))


class Matches(NamedTuple):
    """How the segments of a prediction and a ground truth relate: the segments as tables; for each matched pair its
    positions `row` in `true` and `column` in `predicted`, and its `iou`; which predicted segments are `false` and which
    true ones `missed` (bool, as long as the tables). Segments that are none of these do not count."""

    true: Table
    predicted: Table
    row: np.ndarray
    column: np.ndarray
    iou: np.ndarray
    false: np.ndarray
    missed: np.ndarray


def match_segments(
    prediction: PanopticMap, truth: Sample, num_classes: int, dilation_ratio: float | None = None
) -> Matches:
    """Match the segments of one image; the arguments are those of `PanopticQuality`.

    Raises:
        ValueError: maps of different size; a prediction whose map and segments disagree; an unknown label.
    """
    predicted_map = prediction.segment_map.cpu().numpy()
    check_size(truth, predicted_map.shape)
    pairs = _Pairs(truth.segment_map, predicted_map, Table(truth.segments), Table(prediction.segments))
    true, predicted = pairs.true, pairs.predicted
    check_segments(prediction, pairs.predicted_ids, truth)
    check_labels(np.concatenate([true.label, predicted.label]), num_classes, truth)

    row, column = pairs.row, pairs.column
    iou = pairs.iou
    if dilation_ratio is not None:
        width = boundary_width(predicted_map.shape, dilation_ratio)
        edges, predicted_edges = only_boundary(truth.segment_map, width), only_boundary(predicted_map, width)
        iou = np.minimum(iou, _Pairs(edges, predicted_edges, true, predicted).iou_of(row, column))
    same = true.label[row] == predicted.label[column]
    matched = same & ~true.crowd[row] & (iou > 0.5)

    # If a class has several crowd segments, the published evaluation uses only the last one.
    last_crowd = {label: i for i, label in enumerate(true.label.tolist()) if true.crowd[i]}
    on_crowd = same & np.isin(row, list(last_crowd.values()))
    ignored = pairs.on_void + predicted.sums(np.where(on_crowd, column, -1), pairs.shared)

    missed = ~true.crowd
    missed[row[matched]] = False
    false = ignored <= 0.5 * pairs.predicted_area
    false[column[matched]] = False
    return Matches(true, predicted, row[matched], column[matched], iou[matched], false, missed)


def count_segments(
    prediction: PanopticMap, truth: Sample, num_classes: int, dilation_ratio: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The counts of one image per class: IoU (K, 2) as in `PanopticQuality.iou`; true positives, false positives and
    false negatives (K, 3)."""
    matches = match_segments(prediction, truth, num_classes, dilation_ratio)
    label = matches.true.label[matches.row]
    units = np.ldexp(matches.iou, _MANTISSA).astype(np.int64)  # exact: a float64 in (½, 1] has no finer digits
    sums = np.zeros((num_classes, 2), dtype=np.int64)
    np.add.at(sums, label, np.stack([units >> _LOW, units & ((1 << _LOW) - 1)], 1))
    kinds = (label, matches.predicted.label[matches.false], matches.true.label[matches.missed])
    return sums, np.stack([np.bincount(labels, minlength=num_classes) for labels in kinds], 1)


class _Pairs:
    """The pairs of a true and a predicted segment (`row`, `column` of their tables) that share pixels, the number of
    `shared` pixels, and the segments' areas; all (pairs,) or as long as a table."""

    def __init__(self, true_map: np.ndarray, predicted_map: np.ndarray, true: Table, predicted: Table) -> None:
        self.true, self.predicted = true, predicted
        true_ids, self.predicted_ids, areas = overlaps(true_map, predicted_map)
        row, column = true.index(true_ids), predicted.index(self.predicted_ids)  # −1 = no segment
        self.true_area, self.predicted_area = true.sums(row, areas), predicted.sums(column, areas)
        self.on_void = predicted.sums(np.where(true_ids == 0, column, -1), areas)
        pair = (row >= 0) & (column >= 0)
        self.row, self.column, self.shared = row[pair], column[pair], areas[pair]

    @property
    def iou(self) -> np.ndarray:
        """IoU of each pair; pixels of the prediction on void are not part of the union."""
        union = self.true_area[self.row] + (self.predicted_area - self.on_void)[self.column] - self.shared
        iou: np.ndarray = self.shared / union
        return iou

    def iou_of(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """IoU of any pairs; 0 for those that share nothing."""
        table = np.zeros((len(self.true.ids), len(self.predicted.ids)))
        table[self.row, self.column] = self.iou
        iou: np.ndarray = table[row, column]
        return iou


def boundary_width(size: Sequence[int], dilation_ratio: float) -> int:
    """Pixels d from a contour that count as boundary in an image (H, W); at least one."""
    return max(1, round(dilation_ratio * math.hypot(*size)))


def only_boundary(segment_map: np.ndarray, width: int) -> np.ndarray:
    """A segment map (H, W) whose pixels further than `width` from a contour are −1; 0 stays.

    A pixel is inside if the square of 2·`width` + 1 around it holds nothing but its own segment, so a minimum and a
    maximum over that square tell all segments at once.
    """
    result: np.ndarray = segment_map.copy()
    step = max(4 * width, _PIECE // max(1, segment_map.shape[1]))  # rows at a time: a large image in pieces
    for top in range(0, len(segment_map), step):
        above = min(width, top)
        low = high = segment_map[top - above : top + step + width]  # as many more as the square reaches
        for axis in (0, 1):
            low = minimum_filter1d(low, 2 * width + 1, axis, mode="constant", cval=0)  # 0: beyond the image is outside
            high = maximum_filter1d(high, 2 * width + 1, axis, mode="constant", cval=0)
        part = result[top : top + step]
        inside = (low == high)[above : above + len(part)] & (part != 0)
        part[inside] = -1
    return result

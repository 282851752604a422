"""Panoptic quality (Kirillov et al., CVPR 2019), equal to the published evaluation: crowd, void and predicted void.

A prediction and a ground-truth segment of one class match at IoU > 0.5, where the union leaves out what the
prediction covers of void. A prediction without a match counts as false unless more than half of it lies on void
and on crowd of its class; crowd is neither matched nor missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from kmax.structures import PanopticMap, Sample, Segment


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
class QualityRow(Quality):
    """A row of a table."""

    name: str = ""


@dataclass
class PanopticQualityResult:
    """Panoptic quality of all classes, of things, of stuff, and of each class in the order of labels."""

    all: Quality
    things: Quality
    stuff: Quality
    per_class: tuple[Quality, ...]

    def rows(self, names: Sequence[str]) -> list[QualityRow]:
        """The rows of a table: all, things, stuff, then each class that occurs, by its name."""
        named = [("all", self.all), ("things", self.things), ("stuff", self.stuff)]
        named += [(n, q) for n, q in zip(names, self.per_class, strict=True) if q.tp + q.fp + q.fn]
        return [QualityRow(**asdict(quality), name=name) for name, quality in named]


class PanopticQuality(Metric):
    """Panoptic quality of predictions against samples.

    Args:
        is_thing: for each of the K classes.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    counts: Tensor  # (K, 4) float64: sum of IoU, true positives, false positives, false negatives

    def __init__(self, is_thing: Sequence[bool]) -> None:
        super().__init__()
        self.is_thing = tuple(map(bool, is_thing))
        zeros = torch.zeros(len(self.is_thing), 4, dtype=torch.float64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, predictions: Sequence[PanopticMap], ground_truths: Sequence[Sample]) -> None:
        """Count the segments of some images.

        Raises:
            ValueError: maps of different size; a prediction whose map and segments disagree; an unknown label.
        """
        for prediction, truth in zip(predictions, ground_truths, strict=True):
            counts = count_segments(prediction, truth, len(self.is_thing))
            self.counts += torch.as_tensor(counts, device=self.counts.device)

    def compute(self) -> PanopticQualityResult:
        """The quality of all images so far, on all ranks."""
        counts = self.counts.cpu().numpy()
        thing = np.array(self.is_thing, dtype=bool)
        return PanopticQualityResult(
            all=_quality(counts),
            things=_quality(counts[thing]),
            stuff=_quality(counts[~thing]),
            per_class=tuple(_quality(row[None]) for row in counts),
        )


def _quality(counts: np.ndarray) -> Quality:
    """Mean over classes of counts (k, 4), in percent."""
    iou, tp, fp, fn = counts[counts[:, 1:].any(1)].T
    rq = tp / (tp + (fp + fn) / 2)
    sq = iou / np.maximum(tp, 1)
    pq, sq, rq = (100 * float(x.mean()) if len(x) else 0.0 for x in (rq * sq, sq, rq))
    return Quality(pq, sq, rq, int(tp.sum()), int(fp.sum()), int(fn.sum()))


def count_segments(prediction: PanopticMap, truth: Sample, num_classes: int) -> np.ndarray:
    """The counts (K, 4) of one image: sum of IoU, true positives, false positives, false negatives per class."""
    name = str(truth.file_name or truth.image_id)
    truth_ids, predicted_ids, areas = _overlaps(truth.segment_map, prediction.segment_map.cpu().numpy(), name)
    true, predicted = _Table(truth.segments), _Table(prediction.segments)
    _check(true, predicted, predicted_ids, num_classes, name)
    row, column = true.index(truth_ids), predicted.index(predicted_ids)  # −1 = no segment
    true_area, predicted_area = true.sums(row, areas), predicted.sums(column, areas)
    on_void = predicted.sums(np.where(truth_ids == 0, column, -1), areas)

    pair = (row >= 0) & (column >= 0)
    row, column, overlap = row[pair], column[pair], areas[pair]
    same = true.label[row] == predicted.label[column]
    iou = overlap / (predicted_area[column] + true_area[row] - overlap - on_void[column])
    match = same & ~true.crowd[row] & (iou > 0.5)

    # Of several crowd segments of one class the published evaluation knows only the last one.
    last_crowd = {label: i for i, label in enumerate(true.label.tolist()) if true.crowd[i]}
    on_crowd = same & np.isin(row, list(last_crowd.values()))
    ignored = on_void + predicted.sums(np.where(on_crowd, column, -1), overlap)

    missed = ~true.crowd
    missed[row[match]] = False
    false = ignored <= 0.5 * predicted_area
    false[column[match]] = False
    counts = np.zeros((num_classes, 4))
    np.add.at(counts[:, 0], true.label[row[match]], iou[match])
    for kind, labels in enumerate((true.label[row[match]], predicted.label[false], true.label[missed]), start=1):
        counts[:, kind] = np.bincount(labels, minlength=num_classes)
    return counts


class _Table:
    """Segments as arrays, to be found by id."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.ids = np.array([s.id for s in segments], dtype=np.int64)
        self.label = np.array([s.label for s in segments], dtype=np.int64)
        self.crowd = np.array([s.crowd for s in segments], dtype=bool)
        self.order = np.argsort(self.ids, kind="stable")

    def index(self, ids: np.ndarray) -> np.ndarray:
        """Where each of `ids` stands in the table; −1 if nowhere."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        place = np.searchsorted(self.ids, ids, sorter=self.order).clip(max=len(self.ids) - 1)
        found = self.order[place]
        return np.where(self.ids[found] == ids, found, -1)

    def sums(self, index: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sum of `values` per segment; those at index −1 are left out."""
        return np.bincount(index + 1, values, minlength=len(self.ids) + 1)[1:]


def _check(true: _Table, predicted: _Table, predicted_ids: np.ndarray, num_classes: int, name: str) -> None:
    described, drawn = set(predicted.ids.tolist()), set(predicted_ids.tolist()) - {0}
    if described != drawn:
        odd = min(described ^ drawn)
        where = "its segments but not in its map" if odd in described else "its map but not among its segments"
        raise ValueError(f"The prediction for {name} has segment {odd} in {where}: both must list the same ids.")
    labels = np.concatenate([true.label, predicted.label])
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"{name} has a label outside 0 … {num_classes - 1}: give metric and data the same categories.")


def _overlaps(truth: np.ndarray, predicted: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of ids that share a pixel: true ids, predicted ids, shared pixels (float64), each (pairs,).

    Maps consist of runs of equal pixels, so only the runs are sorted: some thousands instead of H·W.
    """
    if truth.shape != predicted.shape:
        raise ValueError(
            f"The prediction for {name} has size {predicted.shape}, its ground truth {truth.shape}: "
            "resize the prediction to the original size first."
        )
    key = truth.astype(np.int64).ravel() << 32 | predicted.astype(np.int64).ravel()
    starts = np.concatenate([[0], np.flatnonzero(key[1:] != key[:-1]) + 1])
    pairs, inverse = np.unique(key[starts], return_inverse=True)
    areas = np.bincount(inverse, np.diff(starts, append=len(key)), minlength=len(pairs))
    return pairs >> 32, pairs & 0xFFFFFFFF, areas

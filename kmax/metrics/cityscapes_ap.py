"""Average precision of instance masks as in Cityscapes' own evaluation, without its package.

It differs from COCO's: an overlap must exceed the threshold strictly; if several masks are on one instance, the most
confident one counts and the others are false; masks mostly on void, on a crowd or on an instance below 100 pixels are
left out; the area under the curve is taken by trapezoids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kmax.metrics.mask_ap import InstanceMetric, MaskAPResult
from kmax.metrics.overlaps import Table
from kmax.run_lengths import runs, shared_pixels
from kmax.structures import Instances, Sample

THRESHOLDS = np.arange(0.5, 1.0, 0.05)
MIN_AREA = 100  # pixels


class _Matches(NamedTuple):
    """One class in one image at one threshold: `scores` (n,) of the counted masks and whether each is a `hit`;
    `missed` instances."""

    scores: np.ndarray
    hit: np.ndarray
    missed: int


class CityscapesAP(InstanceMetric):
    """Average precision of instances against the things of samples; takes `is_thing` as `InstanceMetric` does."""

    def match_image(self, prediction: Instances, truth: Sample) -> dict[int, tuple[_Matches, ...]]:
        """Hits and misses of one image by label, at each threshold."""
        return _match_image(prediction, truth, self.labels)

    def compute(self) -> MaskAPResult:
        """The average precision of all images so far, on all ranks."""
        records = self.records()
        table = np.array([self._class_ap([r[label] for r in records if label in r]) for label in self.labels])
        table = 100 * table.reshape(-1, len(THRESHOLDS))
        per_class: list[float | None] = [None] * len(self.is_thing)
        per_class50 = list(per_class)
        for label, row in zip(self.labels, table, strict=True):
            if not np.isnan(row[0]):
                per_class[label], per_class50[label] = float(row.mean()), float(row[0])
        known = table[~np.isnan(table[:, 0])]
        if not len(known):
            return MaskAPResult(None, None, tuple(per_class), tuple(per_class50))
        ap75 = float(known[:, int(np.abs(THRESHOLDS - 0.75).argmin())].mean())
        return MaskAPResult(float(known.mean()), float(known[:, 0].mean()), tuple(per_class), tuple(per_class50), ap75)

    @staticmethod
    def _class_ap(images: list[tuple[_Matches, ...]]) -> list[float]:
        """The AP of a class at each threshold; NaN without ground truth."""
        result = []
        for number in range(len(THRESHOLDS)):
            scores = np.concatenate([np.zeros(0), *(image[number].scores for image in images)])
            hit = np.concatenate([np.zeros(0, bool), *(image[number].hit for image in images)])
            result.append(average_precision(scores, hit, sum(image[number].missed for image in images)))
        return result


def average_precision(scores: np.ndarray, hit: np.ndarray, missed: int) -> float:
    """Area under precision over recall of masks (n,), by trapezoids between the distinct scores, beginning at
    recall 0 with precision 1. NaN if there is nothing to be found."""
    total = int(hit.sum()) + missed
    if not total or not len(scores):
        return 0.0 if total else float("nan")
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of equal scores
    hits, masks = np.cumsum(hit[order])[last], np.arange(1, len(scores) + 1)[last]
    precision = np.concatenate([[1.0], hits / masks])
    recall = np.concatenate([[0.0], hits / total])
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


class _Class(NamedTuple):
    """Masks (n) against the true segments (m) of one class in one image: `overlap` IoU (n, m), `ignored` the
    fraction of each mask on pixels that do not count, `scores` (n,), and which segments are `wanted` (m,)."""

    overlap: np.ndarray
    ignored: np.ndarray
    scores: np.ndarray
    wanted: np.ndarray

    def matches_at(self, threshold: float) -> _Matches:
        """Hits, false masks and misses at a threshold of at least ½: no mask overlaps two segments by so much."""
        on = self.overlap > threshold
        best = np.full(len(self.scores), False)
        missed = 0
        for segment in np.flatnonzero(self.wanted):
            masks = np.flatnonzero(on[:, segment])
            missed += not len(masks)
            if len(masks):
                best[masks[self.scores[masks].argmax()]] = True
        false = on[:, self.wanted].any(1) & ~best  # further masks on a segment that has been found
        false |= ~on.any(1) & (self.ignored <= threshold)
        counted = best | false
        return _Matches(self.scores[counted], best[counted], missed)


def _match_image(prediction: Instances, truth: Sample, labels: Sequence[int]) -> dict[int, tuple[_Matches, ...]]:
    """For each class that occurs, its matches at each threshold."""
    table = Table(truth.segments)
    values, starts, lengths = runs(truth.segment_map)
    # Column 0: void; column 1 + i: segment i of the table. Values that no segment has count as void, too.
    column = table.index(values.astype(np.int64)) + 1
    area = np.bincount(column, lengths, minlength=len(table.ids) + 1)[1:]
    shared = np.array([shared_pixels(mask, starts, column, len(area) + 1) for mask in prediction.runs])
    shared = shared.reshape(len(prediction.runs), len(area) + 1)
    mask_label, scores = prediction.labels.cpu().numpy(), prediction.scores.cpu().numpy().astype(np.float64)
    occurring = set(table.label.tolist()) | set(mask_label.tolist())
    found = {}
    for label in sorted(occurring & set(labels)):
        chosen = (mask_label == label) & (shared.sum(1) > 0)
        segments = np.flatnonzero(table.label == label)
        found[label] = _class(shared[chosen], segments, area[segments], table.crowd[segments], scores[chosen])
    return {label: tuple(c.matches_at(threshold) for threshold in THRESHOLDS) for label, c in found.items()}


def _class(shared: np.ndarray, segments: np.ndarray, area: np.ndarray, crowd: np.ndarray, scores: np.ndarray) -> _Class:
    """Compare masks by the pixels (n, 1 + M) that they share with void and every segment of the image."""
    mask_area = shared.sum(1)
    own = shared[:, 1 + segments]
    overlap = own / (mask_area[:, None] + area[None] - own)
    small = area < MIN_AREA
    # A small crowd is counted twice, as in the official evaluation.
    ignored = (shared[:, 0] + own[:, crowd].sum(1) + own[:, small].sum(1)) / np.maximum(mask_area, 1)
    return _Class(overlap, ignored, scores, ~crowd & ~small)

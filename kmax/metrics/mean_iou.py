"""Mean intersection over union of a semantic segmentation: over pixels of all images, then over classes.

The ground truth is the label of each pixel's segment, crowd included, as the official conversions have it; pixels
without a segment don't count. Equal to the class IoU of Cityscapes' evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from kmax.metrics.overlaps import Table, check_labels, check_size, overlaps
from kmax.structures import Sample


@dataclass  # not frozen: torchmetrics refuses to hand out frozen dataclasses
class MeanIoUResult:
    """In percent. `mean` is over the classes that occur in ground truth or prediction; `per_class` is None for the
    others; `pixel_accuracy` is the fraction of labeled pixels that are right. Without any pixel all are None.
    `confusion` (K, K) counts pixels by true and predicted label."""

    mean: float | None
    pixel_accuracy: float | None
    per_class: tuple[float | None, ...]
    confusion: np.ndarray = field(repr=False, compare=False)


class MeanIoU(Metric):
    """Confusion counts of K classes."""

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    confusion: Tensor  # (K, K) int64: pixels by true and predicted label

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[Tensor], ground_truths: Sequence[Sample]) -> None:
        """Count the pixels of semantic maps (H, W) with labels 0 … K−1.

        Raises:
            ValueError: a map of another size; an unknown label.
        """
        for prediction, truth in zip(predictions, ground_truths, strict=True):
            counts = count_pixels(prediction.cpu().numpy(), truth, len(self.confusion))
            self.confusion += torch.as_tensor(counts, device=self.confusion.device)

    def compute(self) -> MeanIoUResult:
        """The IoU of all images so far, on all ranks."""
        confusion = self.confusion.cpu().numpy()
        hits = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - hits
        iou = 100 * hits / np.maximum(union, 1)
        total = int(confusion.sum())
        return MeanIoUResult(
            float(iou[union > 0].mean()) if total else None,
            100 * int(hits.sum()) / total if total else None,
            tuple(float(value) if n else None for value, n in zip(iou, union, strict=True)),
            confusion,
        )


def count_pixels(prediction: np.ndarray, truth: Sample, num_classes: int) -> np.ndarray:
    """The confusion counts (K, K) int64 of one image."""
    check_size(truth, prediction.shape)
    table = Table(truth.segments)
    ids, predicted, areas = overlaps(truth.segment_map, prediction)
    segment = table.index(ids)
    labeled = segment >= 0
    label, predicted, areas = table.label[segment[labeled]], predicted[labeled], areas[labeled]
    check_labels(np.concatenate([table.label, predicted]), num_classes, truth)
    counts = np.bincount(label * num_classes + predicted, areas, minlength=num_classes**2)
    return counts.astype(np.int64).reshape(num_classes, num_classes)

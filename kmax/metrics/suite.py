"""All metrics of a run: what they need, one update per batch, one report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from torch import nn
from torchmetrics import Metric

from kmax.categories import Categories
from kmax.files import Json
from kmax.metrics.cityscapes_ap import CityscapesAP
from kmax.metrics.mask_ap import MaskAP, MaskAPResult
from kmax.metrics.mean_iou import MeanIoU, MeanIoUResult
from kmax.metrics.options import METRICS
from kmax.metrics.panoptic_quality import PanopticQuality, PanopticQualityResult
from kmax.structures import Sample, Segmentations

MASK_AP = {"coco": MaskAP, "cityscapes": CityscapesAP}
Row = Json


@dataclass
class Report:
    """Numbers by name for `all` classes, `things`, `stuff`, and `per_class` in the order of labels, each of these with
    its `name`. Qualities are in percent; None where nothing occurs, such as the AP of stuff. `confusion` (K, K) counts
    pixels by true and predicted label, if mIoU is among the metrics."""

    all: Row
    things: Row
    stuff: Row
    per_class: list[Row]
    confusion: np.ndarray | None = field(default=None, repr=False, compare=False)

    def rows(self) -> list[Row]:
        """The rows of a table: all, things, stuff, then each class that occurs."""
        groups: list[Row] = [{"name": name, **getattr(self, name)} for name in ("all", "things", "stuff")]
        return groups + [row for row in self.per_class if any(value for key, value in row.items() if key != "name")]

    def columns(self) -> list[str]:
        """Names of all numbers, in the order of the metrics."""
        return list(dict.fromkeys(key for row in (self.all, *self.per_class) for key in row if key != "name"))

    def to_dict(self) -> Row:
        """Plain containers, for JSON: all but the confusion."""
        return {name: value for name, value in asdict(self).items() if name != "confusion"}


class MetricSuite(nn.Module):
    """Several metrics of segmentations against samples.

    Args:
        names: which of `METRICS`.
        categories: the classes.
        mask_ap: definition of average precision, `coco` or `cityscapes`.
        dilation_ratio: width of boundaries as a fraction of the image's diagonal.

    Raises:
        ValueError: an unknown name, or none.
    """

    def __init__(
        self,
        names: Sequence[str],
        categories: Categories,
        mask_ap: str = "coco",
        dilation_ratio: float = 0.02,
    ) -> None:
        super().__init__()
        unknown = [name for name in names if name not in METRICS]
        if unknown or not names:
            raise ValueError(
                f"metrics={list(names)}: {unknown[0] + ' is unknown' if unknown else 'none is named'}; "
                f"choose from {', '.join(METRICS)}."
            )
        if mask_ap not in MASK_AP:
            raise ValueError(f"mask_ap={mask_ap} is unknown: choose one of {', '.join(MASK_AP)}.")
        self.categories = categories
        metrics: dict[str, Metric] = {
            "pq": PanopticQuality(categories.is_thing),
            "miou": MeanIoU(categories.num_classes),
            "ap": MASK_AP[mask_ap](categories.is_thing),
            "boundary_pq": PanopticQuality(categories.is_thing, dilation_ratio),
        }
        self.metrics = nn.ModuleDict({name: metrics[name] for name in METRICS if name in names})

    @property
    def needs_semantic(self) -> bool:
        """Whether `update` wants semantic maps."""
        return "miou" in self.metrics

    @property
    def needs_instances(self) -> bool:
        """Whether `update` wants instances."""
        return "ap" in self.metrics

    def update(self, segmentations: Sequence[Segmentations], samples: Sequence[Sample]) -> None:
        """Count some images; nothing in here waits for another rank."""
        kinds = {"miou": "semantic", "ap": "instances"}
        for name, metric in self._named():
            metric.update([getattr(s, kinds.get(name, "panoptic")) for s in segmentations], samples)

    def compute(self) -> Report:
        """The numbers of all images on all ranks, which must all call this."""
        report = Report({}, {}, {}, [{"name": name} for name in self.categories.names])
        for name, metric in self._named():
            result = metric.compute()
            if isinstance(result, PanopticQualityResult):
                _add_quality(report, result, "boundary_" if name == "boundary_pq" else "")
            elif isinstance(result, MeanIoUResult):
                _add_iou(report, result, self.categories.is_thing)
            else:
                _add_ap(report, result)
        return report

    def reset(self) -> None:
        """Forget all images."""
        for _, metric in self._named():
            metric.reset()

    def _named(self) -> Iterator[tuple[str, Metric]]:
        for name, metric in self.metrics.items():
            assert isinstance(metric, Metric), "nothing else is kept"
            yield name, metric


def _add_quality(report: Report, result: PanopticQualityResult, prefix: str) -> None:
    parts = zip(
        (report.all, report.things, report.stuff, *report.per_class),
        (result.all, result.things, result.stuff, *result.per_class),
        strict=True,
    )
    for row, quality in parts:
        row.update({f"{prefix}{key}": value for key, value in asdict(quality).items()})


def _add_iou(report: Report, result: MeanIoUResult, is_thing: Sequence[bool]) -> None:
    report.confusion = result.confusion
    report.all.update(miou=result.mean, pixel_accuracy=result.pixel_accuracy)
    for row, kind in ((report.things, True), (report.stuff, False)):
        of_kind = [
            iou for iou, thing in zip(result.per_class, is_thing, strict=True) if thing == kind and iou is not None
        ]
        row["miou"] = sum(of_kind) / len(of_kind) if of_kind else None
    for row, iou in zip(report.per_class, result.per_class, strict=True):
        row["miou"] = iou


def _add_ap(report: Report, result: MaskAPResult) -> None:
    names = {"ap75": "ap75", "small": "ap_small", "medium": "ap_medium", "large": "ap_large"}
    numbers = {"ap": result.ap, "ap50": result.ap50, **{new: getattr(result, old) for old, new in names.items()}}
    report.all.update(numbers)
    report.things.update(numbers)  # things are all there is
    for row, ap, ap50 in zip(report.per_class, result.per_class, result.per_class50, strict=True):
        row.update(ap=ap, ap50=ap50)

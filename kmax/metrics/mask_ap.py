"""Average precision of instance masks as in COCO, by pycocotools.

The ground truth is the things of a panoptic annotation: disjoint, crowd ignored, areas counted in pixels. Each image
is matched at once; only the matches are kept, not the masks.
"""

from __future__ import annotations

import contextlib
import io
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle
from pycocotools.cocoeval import COCOeval

from kmax.files import Json
from kmax.metrics.overlaps import check_labels, check_size
from kmax.metrics.records import RecordMetric
from kmax.run_lengths import RunLengths, encode
from kmax.structures import Instances, Sample

_KEPT = ("dtScores", "dtMatches", "dtIgnore", "gtIgnore")  # what pycocotools accumulates


@dataclass  # not frozen: torchmetrics refuses to hand out frozen dataclasses
class MaskAPResult:
    """In percent; `ap` is the mean over IoU thresholds 0.5, 0.55 … 0.95, `ap50` and `ap75` are at one threshold;
    `small`, `medium`, `large` by area, below 32², below 96² and above (not in Cityscapes). `per_class` and
    `per_class50` are by label. None where there is no ground truth (and for stuff)."""

    ap: float | None
    ap50: float | None
    per_class: tuple[float | None, ...]
    per_class50: tuple[float | None, ...]
    ap75: float | None = None
    small: float | None = None
    medium: float | None = None
    large: float | None = None


class InstanceMetric(RecordMetric):
    """Base of the instance metrics: each image is matched at once, and only its record is kept.

    Args:
        is_thing: for each of the K classes.
    """

    def __init__(self, is_thing: Sequence[bool]) -> None:
        super().__init__()
        self.is_thing = tuple(map(bool, is_thing))
        self.labels = [label for label, thing in enumerate(self.is_thing) if thing]

    def update(self, predictions: Sequence[Instances], ground_truths: Sequence[Sample]) -> None:
        """Match the instances of some images.

        Raises:
            ValueError: masks of another size than the image; an unknown label.
        """
        for prediction, truth in zip(predictions, ground_truths, strict=True):
            check_instances(prediction, truth, len(self.is_thing))
            self.keep(truth.image_id, self.match_image(prediction, truth))

    @abstractmethod
    def match_image(self, prediction: Instances, truth: Sample) -> object:
        """The record of one image; a subclass says how masks are matched."""


class MaskAP(InstanceMetric):
    """Average precision of instances against the things of samples; takes `is_thing` as `InstanceMetric` does."""

    def match_image(self, prediction: Instances, truth: Sample) -> dict[tuple[int, int], Json]:
        """The matches of pycocotools for one image, by label and range of areas."""
        return _match(prediction, truth, self.labels)

    def compute(self) -> MaskAPResult:
        """The average precision of all images so far, on all ranks."""
        records = self.records()
        evaluation = _evaluation(self.labels)
        evaluation.params.imgIds = list(range(len(records)))
        evaluation.evalImgs = [
            record.get((label, area)) for label in self.labels for area in range(4) for record in records
        ]
        evaluation._paramsEval = evaluation.params
        if not records or not self.labels:
            return MaskAPResult(None, None, *((None,) * len(self.is_thing),) * 2)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
        precision = evaluation.eval["precision"][..., 0]  # IoU threshold, recall, class, area
        whole = {label: precision[:, :, i, 0] for i, label in enumerate(self.labels)}
        per_class = [_mean(whole[k]) if k in whole else None for k in range(len(self.is_thing))]
        per_class50 = [_mean(whole[k][0]) if k in whole else None for k in range(len(self.is_thing))]
        areas = [_mean(precision[..., area]) for area in range(4)]
        first, middle = _mean(precision[0, ..., 0]), _mean(precision[5, ..., 0])
        return MaskAPResult(areas[0], first, tuple(per_class), tuple(per_class50), middle, *areas[1:])


def check_instances(prediction: Instances, truth: Sample, num_classes: int) -> None:
    """Raise a ValueError for masks of another size than the image, or an unknown label."""
    check_size(truth, prediction.size)
    labels = [segment.label for segment in truth.segments]
    check_labels(np.concatenate([labels, prediction.labels.cpu().numpy()]).astype(np.int64), num_classes, truth)


def _mean(precision: np.ndarray) -> float | None:
    known = precision[precision > -1]  # −1 stands for a class without ground truth
    return 100 * float(known.mean()) if known.size else None


def _evaluation(labels: Sequence[int]) -> COCOeval:
    evaluation = COCOeval(iouType="segm")
    evaluation.params.catIds = list(labels)
    evaluation.params.maxDets = [100]
    return evaluation


def _match(prediction: Instances, truth: Sample, labels: Sequence[int]) -> dict[tuple[int, int], Json]:
    """pycocotools' matches of one image by (label, number of the area range), without empty ones."""
    evaluation = _evaluation(labels)
    things = [segment for segment in truth.segments if segment.label in set(labels)]
    masks = encode(truth.segment_map[None], [segment.id for segment in things])
    encoded = [coco_rle(masks[segment.id]) for segment in things]
    for number, (segment, mask) in enumerate(zip(things, encoded, strict=True), start=1):
        entry = {"id": number, "segmentation": mask, "area": int(rle.area(mask))}
        entry |= {"iscrowd": int(segment.crowd), "ignore": int(segment.crowd)}
        evaluation._gts[0, segment.label].append(entry)
    predicted = zip(map(coco_rle, prediction.runs), prediction.labels.tolist(), prediction.scores.tolist(), strict=True)
    for number, (mask, label, score) in enumerate(predicted, start=1):
        entry = {"id": number, "segmentation": mask, "area": int(rle.area(mask)), "score": score}
        evaluation._dts[0, label].append(entry)
    occurring = sorted({label for _, label in (*evaluation._gts, *evaluation._dts)} & set(labels))
    evaluation.ious = {(0, label): evaluation.computeIoU(0, label) for label in occurring}
    return {
        (label, number): _compact(evaluation.evaluateImg(0, label, area, 100))
        for label in occurring
        for number, area in enumerate(evaluation.params.areaRng)
    }


def _compact(matches: Json) -> Json:
    """The fields that accumulating needs, in few bytes."""
    kept = {key: np.asarray(matches[key]) for key in _KEPT}
    return {key: value if key == "dtScores" else value.astype(bool) for key, value in kept.items()}


def coco_rle(mask: RunLengths) -> Json:
    """A mask as pycocotools has it: `size` and compressed `counts`."""
    height, width = mask.size
    encoded: Json = rle.frPyObjects({"size": [height, width], "counts": mask.counts()}, height, width)
    return encoded

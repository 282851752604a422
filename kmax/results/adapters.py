"""Results in the types of other libraries. Each function imports its library when it is called: kmax needs none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kmax.categories import Categories
from kmax.files import Json
from kmax.structures import Instances, PanopticMap

if TYPE_CHECKING:
    import supervision


def to_supervision(result: PanopticMap | Instances, categories: Categories) -> supervision.Detections:
    """Segments or instances as `supervision.Detections`, one row each, in their order.

    `mask` (n, H, W), `xyxy`, `class_id` (labels 0 … K−1), `confidence`, and `data["class_name"]`, which annotators use.
    Things and stuff are alike; `detections[[categories.is_thing[i] for i in detections.class_id]]` keeps the things.
    Instances without pixels are left out.

    Raises:
        ModuleNotFoundError: supervision is not installed.
    """
    import supervision

    if isinstance(result, PanopticMap):
        ids = np.array([segment.id for segment in result.segments], np.int64)
        masks = result.segment_map.cpu().numpy() == ids[:, None, None]
        labels = np.array([segment.label for segment in result.segments], int)
        scores = np.array([segment.score for segment in result.segments], float)
    else:
        masks, labels = result.masks.numpy(), result.labels.cpu().numpy().astype(int)
        scores = result.scores.cpu().numpy().astype(float)
    seen = masks.any((1, 2))
    masks, labels, scores = masks[seen], labels[seen], scores[seen]
    return supervision.Detections(
        xyxy=supervision.mask_to_xyxy(masks).astype(float).reshape(-1, 4),
        mask=masks,
        class_id=labels,
        confidence=scores,
        data={"class_name": np.array(categories.names)[labels]},
    )


def to_image_segmentation(result: PanopticMap | Instances, categories: Categories) -> list[Json]:
    """What the `image-segmentation` pipeline of Hugging Face's transformers returns for panoptic or instance
    segmentation: for each segment its `score`, its `label` (the class's name) and its `mask`, a PIL image of mode L and
    the image's size with 255 inside."""
    if isinstance(result, PanopticMap):
        segment_map = result.segment_map.cpu().numpy()
        found = [(s.score, s.label, segment_map == s.id) for s in result.segments]
    else:
        rows = zip(result.scores.tolist(), result.labels.tolist(), result.runs, strict=True)
        found = [(score, label, runs.decode()) for score, label, runs in rows]
    return [
        {"score": score, "label": categories.names[label], "mask": Image.fromarray(np.uint8(255) * mask)}
        for score, label, mask in found
    ]

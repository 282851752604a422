"""Predictions in COCO's result formats: panoptic (PNG + JSON) and instances (JSON with run-length encoded masks)."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as rle
from scipy import ndimage

from kmax.categories import Categories
from kmax.files import Json
from kmax.metrics.mask_ap import coco_rle
from kmax.metrics.overlaps import overlaps
from kmax.structures import Instances, PanopticMap


def encode_ids(segment_map: np.ndarray) -> np.ndarray:
    """Segment ids (H, W) as COCO stores them in a PNG: (H, W, 3) uint8 with id = R + 256·G + 65536·B."""
    little = np.ascontiguousarray(segment_map, "<i4")
    return np.ascontiguousarray(little.view(np.uint8).reshape(*little.shape, 4)[..., :3])


def category_table(categories: Categories) -> list[Json]:
    """The `categories` of COCO's panoptic JSON."""
    return [
        {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)} for c in categories.classes
    ]


def segments_info(prediction: PanopticMap, categories: Categories) -> list[Json]:
    """The segments as COCO's panoptic JSON lists them, with areas, boxes (x, y, w, h) and scores."""
    segment_map = prediction.segment_map.cpu().numpy()
    boxes = ndimage.find_objects(segment_map)
    _, ids, counts = overlaps(segment_map, segment_map)
    areas = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    entries = []
    for segment in prediction.segments:
        rows, columns = boxes[segment.id - 1]
        entries.append(
            {
                "id": segment.id,
                "category_id": categories.ids[segment.label],
                "area": int(areas[segment.id]),
                "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                "iscrowd": 0,
                "score": round(segment.score, 6),
            }
        )
    return entries


def panoptic_annotation(prediction: PanopticMap, image_id: int | str, categories: Categories, file_name: str) -> Json:
    """One entry of `annotations` in COCO's panoptic JSON; `file_name` is that of its PNG."""
    return {
        "image_id": image_id,
        "file_name": file_name,
        "segments_info": segments_info(prediction, categories),
    }


def instance_results(instances: Instances, image_id: int | str, categories: Categories) -> list[Json]:
    """The non-empty instances of one image as entries of COCO's results JSON, by descending score.

    They have no `bbox`: pycocotools' `loadRes` would take the area of the box for that of the mask, and makes both
    from the mask where there is none.
    """
    entries = []
    for runs, label, score in zip(instances.runs, instances.labels.tolist(), instances.scores.tolist(), strict=True):
        if not len(runs.starts):
            continue
        encoded = coco_rle(runs)
        entries.append(
            {
                "image_id": image_id,
                "category_id": categories.ids[label],
                "area": int(rle.area(encoded)),
                "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode()},
                "score": round(score, 6),
            }
        )
    return entries

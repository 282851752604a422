"""The kind of a JSON file: three kinds that are read, and others for messages."""

from __future__ import annotations

from kmax.files import Json

LABELME, COCO_INSTANCES, COCO_PANOPTIC = "Labelme JSON", "COCO instances JSON", "COCO panoptic JSON"
CONVERTER = "scripts/prepare_own.py"
"""The command that converts the kinds that are read into the format for training."""
_OTHER_KINDS = (
    ({"annotations", "images"}, "COCO JSON without categories"),
    ({"_via_img_metadata"}, "a VGG Image Annotator project"),
    ({"objects", "size"}, "Supervisely JSON"),
    ({"item", "annotations"}, "Darwin (V7) JSON"),
    ({"imgHeight", "objects"}, "Cityscapes polygons"),
    ({"labels", "version", "mapping"}, "the configuration of Mapillary Vistas"),
    ({"items", "categories"}, "Datumaro JSON"),
    ({"type", "features"}, "GeoJSON"),
    ({"images"}, "COCO JSON without annotations, such as a list of test images"),
    ({"classes"}, "a list of classes"),
)


def kind_of(content: object) -> str:
    """The kind of a JSON file, in words for messages; `LABELME`, `COCO_INSTANCES`, `COCO_PANOPTIC` are read."""
    if isinstance(content, list):
        entry = content[0] if content and isinstance(content[0], dict) else {}
        if "data" in entry:
            return "the JSON export of Label Studio (export as COCO instead)"
        if "isthing" in entry:
            return "a list of classes (to stand under the key categories)"
        return "a list of a model's results" if "score" in entry else "a JSON list"
    if not isinstance(content, dict):
        return "JSON of an unknown kind"
    if isinstance(content.get("shapes"), list) and ("imagePath" in content or "imageData" in content):
        return LABELME
    if isinstance(content.get("images"), list) and isinstance(content.get("categories"), list):
        return _kind_of_coco(content)
    first = next(iter(content.values()), None)
    if isinstance(first, dict) and {"filename", "regions"} <= first.keys():
        return "VGG Image Annotator JSON (export as COCO instead)"
    return next((kind for keys, kind in _OTHER_KINDS if keys <= content.keys()), "JSON of an unknown kind")


def _kind_of_coco(content: Json) -> str:
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        return "COCO JSON without annotations, such as a list of test images"
    entries = [entry for entry in annotations if isinstance(entry, dict)]
    if any("segments_info" in entry for entry in entries):
        return COCO_PANOPTIC
    if any("caption" in entry for entry in entries):
        return "COCO captions"
    if entries and not any(entry.get("segmentation") for entry in entries):
        return "COCO keypoints" if "keypoints" in entries[0] else "COCO detection: boxes without masks"
    return COCO_INSTANCES

"""Predictions as annotations to correct: COCO instances JSON (CVAT and most others) and tasks for Label Studio.

Both hold a polygon for every part of every segment, things and stuff. A class `background` is left out, since
`scripts/prepare_own.py` gives the pixels without annotation to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from scipy import ndimage

from kmax.categories import Categories
from kmax.data.convert.rules import is_background
from kmax.files import Json, replacing, write_list
from kmax.results.coco import segments_info
from kmax.results.outlines import polygons
from kmax.run_lengths import RunLengths
from kmax.structures import PanopticMap

LOCAL_FILES = "/data/local-files/?d="
"""What the address of an image begins with in Label Studio, where it reads a folder of its own machine."""


@dataclass(frozen=True)
class AnnotationStyle:
    """How segments become annotations: `tolerance` is the number of pixels that a polygon may deviate from its
    segment; with `rle_holes`, COCO's file holds segments with holes as run-length codes and not as polygons."""

    tolerance: float = 1.0
    rle_holes: bool = False


def annotation_entries(prediction: PanopticMap, categories: Categories, style: AnnotationStyle) -> list[Json]:
    """The segments of one image as `annotations` of COCO, without ids; a segment that `style` wants as a run-length
    code has that under `rle` as well."""
    segment_map = prediction.segment_map.cpu().numpy()
    entries = []
    for segment in segments_info(prediction, categories):
        category = categories.classes[categories.label_of[segment["category_id"]]]
        if not category.is_thing and is_background(category.name):
            continue
        left, top, width, height = segment["bbox"]
        inside = segment_map[top : top + height, left : left + width] == segment["id"]
        corner = np.array([left, top])
        found = [np.reshape(part, (-1, 2)) + corner for part in polygons(inside, style.tolerance)]
        entry = {key: segment[key] for key in ("category_id", "area", "bbox", "score")}
        entry |= {"segmentation": [part.ravel().tolist() for part in found], "iscrowd": 0}
        if style.rle_holes and _has_hole(inside):
            counts = RunLengths.of(segment_map == segment["id"]).counts()
            entry["rle"] = {"size": list(segment_map.shape), "counts": counts}
        entries.append(entry)
    return entries


def _has_hole(mask: np.ndarray) -> bool:
    return bool(ndimage.binary_fill_holes(mask).sum() > mask.sum())


def coco_images(records: Iterable[Json]) -> Iterator[Json]:
    """`images` of a COCO JSON, numbered from 1, since tools want numbers; `file_name` is the name in the input."""
    for number, record in enumerate(records, 1):
        yield {"id": number, "file_name": record["source"], "width": record["width"], "height": record["height"]}


def coco_annotations(records: Iterable[Json]) -> Iterator[Json]:
    """`annotations` of a COCO JSON, numbered from 1, for `coco_images` of the same records."""
    ids = count(1)
    for number, record in enumerate(records, 1):
        for entry in record["annotations"]:
            kept = {key: value for key, value in entry.items() if key != "rle"}
            kept["segmentation"] = entry.get("rle", entry["segmentation"])
            yield {"id": next(ids), "image_id": number, **kept}


def label_studio_tasks(records: Iterable[Json], categories: Categories) -> Iterator[Json]:
    """One task of Label Studio for each image, with a prediction of polygons in percent of the image's size.

    An image's address is `LOCAL_FILES` and its name in the input.
    """
    for record in records:
        size = np.array([record["width"], record["height"]])
        results: list[Json] = []
        for entry in record["annotations"]:
            name = categories.names[categories.label_of[entry["category_id"]]]
            for part in entry["segmentation"]:
                points = (100 * np.reshape(part, (-1, 2)) / size).tolist()
                results.append(
                    {
                        "id": f"segment-{len(results) + 1}",
                        "type": "polygonlabels",
                        "from_name": "label",
                        "to_name": "image",
                        "original_width": record["width"],
                        "original_height": record["height"],
                        "image_rotation": 0,
                        "value": {"points": points, "polygonlabels": [name], "closed": True},
                        "score": entry["score"],
                    }
                )
        address = LOCAL_FILES + record["source"]
        yield {"data": {"image": address}, "predictions": [{"model_version": "kmax", "result": results}]}


def label_studio_interface(categories: Categories) -> str:
    """The labeling interface that the tasks belong to, with the classes and their colors."""
    labels = "".join(
        f"    <Label value={quoteattr(c.name)} background={quoteattr('#' + bytes(c.color).hex())}/>\n"
        for c in categories.classes
        if c.is_thing or not is_background(c.name)
    )
    image = '  <Image name="image" value="$image"/>\n'
    return f'<View>\n{image}  <PolygonLabels name="label" toName="image">\n{labels}  </PolygonLabels>\n</View>\n'


def _write_coco(folder: Path, records: Iterable[Json], categories: Categories) -> Path:
    classes = [{"id": c.id, "name": c.name, "supercategory": ""} for c in categories.classes]
    with replacing(folder / "annotations.json") as path, path.open("w") as file:
        for opening, name, entries in (
            ("{", "images", coco_images(records)),
            (",", "annotations", coco_annotations(records)),
        ):
            file.write(f'{opening}"{name}": ')
            write_list(file, entries)
        file.write(f',"categories": {json.dumps(classes)}}}')
    return folder / "annotations.json"


def _write_label_studio(folder: Path, records: Iterable[Json], categories: Categories) -> Path:
    with replacing(folder / "label_studio.xml") as path:
        path.write_text(label_studio_interface(categories), encoding="utf-8")
    with replacing(folder / "label_studio.json") as path, path.open("w") as file:
        write_list(file, label_studio_tasks(records, categories))
    return folder / "label_studio.json"


WRITERS: dict[str, Callable[[Path, Iterable[Json], Categories], Path]] = {
    "annotations": _write_coco,
    "label_studio": _write_label_studio,
}
"""The outputs that are made here; each writes its files into a folder and returns the one to import. The records are
iterated more than once."""

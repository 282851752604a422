"""COCO panoptic from other sources, checked against its PNG files and renumbered; Mapillary Vistas v2.0 as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from kmax.categories.kinds import COCO_PANOPTIC
from kmax.data.convert.image_files import ImageFiles
from kmax.data.convert.source import ClassInfo, Item, LabelMap, Size, Source, Tag
from kmax.data.convert.tree import Tree, read_json, split_of
from kmax.files import Json

MAPILLARY = "Mapillary Vistas v2.0 panoptic"
VERSION = "v2.0"


def find(tree: Tree) -> Source | None:
    """The panoptic JSON files of a source, read together.

    Raises:
        ValueError: a file is damaged or contradicts itself, or its images or PNG files cannot be found.
    """
    files = tree.of_kind(COCO_PANOPTIC)
    vistas = [file for file in files if file.parent.parent.name == VERSION]  # SPLIT/v2.0/panoptic/panoptic_2020.json
    if not files:
        return None
    name = MAPILLARY if vistas else COCO_PANOPTIC
    items: dict[str, Item] = {}
    classes: dict[str, ClassInfo] = {}
    left_out: Counter[str] = Counter()
    for file in vistas or files:
        content = read_json(file)
        infos = _classes(content, file, name)
        classes.update({info.name: info for info in infos.values() if info.name not in classes})
        for item in _items(content, infos, file, name, tree, left_out):
            items.setdefault(item.key, item)
    if not items:
        raise ValueError(f"{files[0]} is {name}, but none of its images is below {tree.images}: give --images.")
    used = tuple(classes.values())
    return Source(name, tuple(items.values()), used, _read, owns_background=False, left_out=left_out)


def _classes(content: Json, file: Path, name: str) -> dict[int, ClassInfo]:
    infos: dict[int, ClassInfo] = {}
    for entry in content["categories"]:
        if not isinstance(entry, dict) or "id" not in entry or not entry.get("name"):
            raise ValueError(f"{file} is {name}, but a category lacks its id or its name: mend the file.")
        color = entry.get("color")
        rgb = tuple(int(n) for n in color) if isinstance(color, list) and len(color) == 3 else None
        is_thing = bool(int(entry["isthing"])) if "isthing" in entry else None
        infos[int(entry["id"])] = ClassInfo(str(entry["name"]), is_thing, rgb)  # type: ignore[arg-type]
    return infos


def _items(
    content: Json,
    classes: Mapping[int, ClassInfo],
    file: Path,
    name: str,
    tree: Tree,
    left_out: Counter[str],
) -> list[Item]:
    images = {str(image["id"]): image for image in content["images"]}
    folder = _maps(content, file, tree)
    if folder is None:
        raise ValueError(f"{file} is {name}, but its PNG files are not found: unpack them into {file.with_suffix('')}.")
    image_files = ImageFiles(
        tree.images, (p for p in tree.image_files.below(tree.images) if not p.is_relative_to(folder))
    )
    near = file.parent.parent.parent / "images" if name == MAPILLARY else file.parent
    items = []
    for annotation in content["annotations"]:
        image, png = images.get(str(annotation["image_id"])), folder / str(annotation["file_name"])
        image_file = image_files.find(str(image["file_name"]), near) if image else None
        if image_file is None or not png.is_file():
            left_out["annotation whose image or PNG is missing"] += 1
            continue
        records = tuple(_named(segment, classes, file, name) for segment in annotation["segments_info"])
        labels = frozenset(record["label"] for record in records)
        items.append(
            Item(
                tree.image_files.key(image_file),
                image_file,
                labels,
                split_of(file, tree.root, by_name=True),
                (png,),
                records,
            )
        )
    return items


def _maps(content: Json, file: Path, tree: Tree) -> Path | None:
    """The folder of the PNG files: of the JSON's name, beside it, or anywhere else but with the name of the file."""
    names = [str(annotation["file_name"]) for annotation in content["annotations"][:1]]
    folders = [file.with_suffix(""), file.parent, file.parent / "panoptic"]
    elsewhere = [other.parent for other in tree.files if names and other.name == names[0]]
    return next((p for p in (*folders, *elsewhere) if names and (p / names[0]).is_file()), None)


def _named(segment: Json, classes: Mapping[int, ClassInfo], file: Path, name: str) -> Json:
    category = classes.get(int(segment["category_id"]))
    if category is None:
        raise ValueError(
            f"{file} is {name} with a segment of category {segment['category_id']}, which is not among its categories."
        )
    return {"id": int(segment["id"]), "label": category.name, "crowd": bool(segment.get("iscrowd") or 0)}


def _read(item: Item, size: Size) -> LabelMap:
    """The PNG's ids, each with its entry of the JSON; what only one of them has is counted."""
    pixels = cv2.imread(str(item.files[0]), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(f"the PNG {item.files[0]} is damaged")
    values = pixels.astype(np.int32) @ np.array([65536, 256, 1], np.int32)  # (H, W, BGR) → (H, W)
    tags = {record["id"]: Tag(record["label"], record["crowd"]) for record in item.records}
    if len(tags) < len(item.records):
        raise ValueError(f"two segments of {item.files[0].name} have one id")
    in_png = set(np.unique(values).tolist()) - {0}
    left_out = Counter(
        {
            "segment of a PNG that the JSON lacks": len(in_png - tags.keys()),
            "segment of a JSON that the PNG lacks": len(tags.keys() - in_png),
        }
    )
    return LabelMap(values, {id_: tag for id_, tag in tags.items() if id_}, +left_out)

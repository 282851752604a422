"""COCO instances: one JSON with polygons and run-length codes, as COCO, CVAT, Roboflow and Label Studio write it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from kmax.categories.kinds import COCO_INSTANCES
from kmax.data.convert import shapes
from kmax.data.convert.source import ClassInfo, Item, Record, Region, Shapes, Size, Source
from kmax.data.convert.tree import Tree, read_json, split_of
from kmax.files import Json

NO_MASK = "annotation without a mask (a box alone)"
NO_IMAGE = "image that is listed but missing, or whose name fits several files"


def find(tree: Tree) -> Source | None:
    """The COCO instances of a source; several files are read together, their classes by name.

    Raises:
        ValueError: a file is damaged or contradicts itself, or none of its images can be found.
    """
    files = tree.of_kind(COCO_INSTANCES)
    if not files:
        return None
    items: dict[str, Item] = {}
    classes: dict[str, ClassInfo] = {}
    left_out: Counter[str] = Counter()
    for file in files:
        content = read_json(file)
        names = class_names(content, file)
        classes.update({name: ClassInfo(name) for name in names.values() if name not in classes})
        for item in _items(content, names, file, tree, left_out):
            items[item.key] = _joined(items[item.key], item) if item.key in items else item
    if not items:
        listed = next((image.get("file_name") for image in read_json(files[0])["images"]), None)
        raise ValueError(
            f"{files[0]} is {COCO_INSTANCES}, but none of its images is below {tree.images} (the first is called "
            f"{listed}): give their folder with --images."
        )
    return Source(COCO_INSTANCES, tuple(items.values()), tuple(classes.values()), _read, left_out=left_out)


def class_names(content: Json, file: Path) -> dict[int | str, str]:
    """Name by category id, without roots that nobody uses: Roboflow lists the project as class 0 of supercategory
    "none". Names that occur twice are distinguished by their supercategories.

    Raises:
        ValueError: a category lacks its id or name.
    """
    entries = content["categories"]
    if not all(isinstance(e, dict) and e.get("id") is not None and e.get("name") not in (None, "") for e in entries):
        raise ValueError(f"{file}: every category needs an id and a name.")
    used = {a.get("category_id") for a in content["annotations"]}
    parents = {e.get("supercategory") for e in entries}
    root = [e for e in entries if e.get("supercategory") == "none" and e["name"] in parents and e["id"] not in used]
    counts = Counter(str(e["name"]) for e in entries if e not in root)
    return {
        e["id"]: str(e["name"]) if counts[str(e["name"])] == 1 else f"{e.get('supercategory', e['id'])}/{e['name']}"
        for e in entries
        if e not in root
    }


def _items(content: Json, names: Mapping[int | str, str], file: Path, tree: Tree, left_out: Counter[str]) -> list[Item]:
    records = _by_image(content, names, file, left_out)
    items = []
    for image in content["images"]:
        name = str(image.get("file_name") or image.get("path") or "")
        image_file = tree.image_files.find(name, file.parent)
        if image_file is None:
            left_out[NO_IMAGE] += 1
            continue
        own = tuple(records.get(str(image.get("id")), ()))
        size = (int(image["height"]), int(image["width"])) if image.get("height") and image.get("width") else None
        labels = frozenset(record["label"] for record in own)
        split = split_of(file, tree.root, by_name=True) or split_of(image_file, tree.images)
        items.append(Item(tree.image_files.key(image_file), image_file, labels, split, (), own, size))
    return items


def _by_image(
    content: Json, names: Mapping[int | str, str], file: Path, left_out: Counter[str]
) -> dict[str, list[Record]]:
    """Annotations by image, with the class's name; ids may be numbers or strings, in one file even both."""
    by_id = {str(key): name for key, name in names.items()}
    images = {str(image.get("id")) for image in content["images"]}
    if len(images) < len(content["images"]):
        raise ValueError(f"{file} is {COCO_INSTANCES} with an image id that occurs twice: export it again.")
    records: dict[str, list[Record]] = {}
    for annotation in content["annotations"]:
        image = str(annotation.get("image_id"))
        if image not in images:
            left_out["annotation of an image that is not listed"] += 1
        elif not annotation.get("segmentation"):
            left_out[NO_MASK] += 1
        elif str(annotation.get("category_id")) not in by_id:
            raise ValueError(
                f"{file} is {COCO_INSTANCES} with an annotation of category {annotation.get('category_id')}, which is "
                "not among its categories: add it there, or export the file again."
            )
        else:
            records.setdefault(image, []).append(
                {
                    "label": by_id[str(annotation["category_id"])],
                    "segmentation": annotation["segmentation"],
                    "crowd": _is_crowd(annotation),
                }
            )
    return records


def _is_crowd(annotation: Json) -> bool:
    """`iscrowd`, which may be missing; CVAT sets it for whatever was painted with the brush, and is known by its
    attributes."""
    attributes = annotation.get("attributes")
    from_cvat = isinstance(attributes, dict) and "occluded" in attributes
    return bool(int(annotation.get("iscrowd") or 0)) and not from_cvat


def _joined(first: Item, second: Item) -> Item:
    """Join the items of one image that two files describe."""
    return Item(
        first.key,
        first.image_file,
        first.labels | second.labels,
        first.split or second.split,
        (),
        first.records + second.records,
        first.size or second.size,
    )


def _read(item: Item, size: Size) -> Shapes:
    regions, left_out = [], Counter[str]()
    for record in item.records:
        code = record["segmentation"]
        if isinstance(code, dict):
            rle: shapes.Rle | None = shapes.run_lengths(code, size)
        else:
            parts = code if isinstance(code[0], list) else [code]  # some tools forget the outer list
            rle = shapes.polygons(parts, size)
        if rle is None:
            left_out["polygon without three points"] += 1
        else:
            regions.append(Region(record["label"], rle, crowd=record["crowd"]))
    return Shapes(tuple(regions), left_out)

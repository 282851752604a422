"""CVAT for images 1.1: one XML file with polygons, masks and ellipses, and their z-order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from kmax.data.convert import shapes
from kmax.data.convert.source import ClassInfo, Item, Record, Region, Shapes, Size, Source
from kmax.data.convert.tree import Tree, split_of

FORMAT = "CVAT for images 1.1 XML"
AREAS = ("polygon", "mask", "ellipse")
OTHERS = ("box", "polyline", "points", "cuboid", "skeleton", "tag")


def find(tree: Tree) -> Source | None:
    """The CVAT files of a source.

    Raises:
        ValueError: a file is damaged, or holds tracks of a video.
    """
    roots = {file: root for file in tree.named(".xml") if (root := _root(file)) is not None}
    if not roots:
        return None
    items: dict[str, Item] = {}
    classes: dict[str, ClassInfo] = {}
    left_out: Counter[str] = Counter()
    for file, root in roots.items():
        if root.find("track") is not None:
            raise ValueError(f"{file} is CVAT for video: export the task as 'CVAT for images 1.1' instead.")
        for label in root.iterfind("meta//labels/label"):
            name = (label.findtext("name") or "").strip()
            classes.setdefault(name, ClassInfo(name, color=_color(label.findtext("color"))))
        for image in root.iterfind("image"):
            item = _item(image, file, tree, left_out)
            if item is not None:
                items[item.key] = item
    for item in items.values():
        for name in sorted(item.labels):
            classes.setdefault(name, ClassInfo(name))
    if not items:
        raise ValueError(
            f"{next(iter(roots))} is {FORMAT}, but none of its images is below {tree.images}: export the task with "
            "its images, or give their folder with --images."
        )
    used = tuple(classes.values())
    return Source(FORMAT, tuple(items.values()), used, _read, is_ordered=True, left_out=left_out)


def _root(file: Path) -> Element | None:
    """The root of a CVAT file; None for other XML."""
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{file} is not valid XML ({error}): export it again.") from error
    is_cvat = root.tag == "annotations" and (root.find("image") is not None or root.find("track") is not None)
    return root if is_cvat else None


def _color(text: str | None) -> tuple[int, int, int] | None:
    """`#rrggbb` as RGB."""
    try:
        red, green, blue = bytes.fromhex((text or "").removeprefix("#"))
    except ValueError:
        return None
    return red, green, blue


def _item(image: Element, file: Path, tree: Tree, left_out: Counter[str]) -> Item | None:
    image_file = tree.image_files.find(image.get("name", ""), file.parent)
    if image_file is None:
        left_out["image that is listed but missing, or whose name fits several files"] += 1
        return None
    records: list[Record] = []
    for shape in image:
        if shape.tag in AREAS:
            records.append({**shape.attrib, "kind": shape.tag})
        elif shape.tag in OTHERS:
            left_out[f"{shape.tag}, which is no area" if shape.tag != "box" else "box, which is no mask"] += 1
    labels = frozenset(record["label"].strip() for record in records)
    split = SUBSETS.get(image.get("subset", "").lower()) or split_of(file, tree.root, by_name=True)
    size = (int(image.attrib["height"]), int(image.attrib["width"])) if "height" in image.attrib else None
    return Item(tree.image_files.key(image_file), image_file, labels, split, (), tuple(records), size)


SUBSETS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validation": "val",
    "test": "test",
}  # CVAT spells its own labels like this


def _read(item: Item, size: Size) -> Shapes:
    regions, left_out = [], Counter[str]()
    for record in item.records:
        rle = _READERS[record["kind"]](record, size)
        if rle is None:
            left_out[f"{record['kind']} without three points"] += 1
            continue
        group = record.get("group_id")
        order = float(record.get("z_order") or 0)
        regions.append(Region(record["label"].strip(), rle, order, None if group in (None, "", "0") else group))
    return Shapes(tuple(regions), left_out)


def _polygon(record: Mapping[str, str], size: Size) -> shapes.Rle | None:
    points = [float(n) for point in record["points"].split(";") if point for n in point.split(",")]
    return shapes.polygons([points], size)


def _mask(record: Mapping[str, str], size: Size) -> shapes.Rle | None:
    """Runs go row by row through the mask's own box, and start with the background."""
    height, width = int(float(record["height"])), int(float(record["width"]))
    runs = np.array([int(n) for n in record["rle"].split(",")])
    values = np.repeat(np.arange(len(runs)) % 2, runs)
    if values.size != height * width:
        raise ValueError(f"a mask of {record['label']} has {values.size} pixels but its box {height * width}")
    mask = values.reshape(height, width)
    return shapes.bitmap(mask, int(float(record["left"])), int(float(record["top"])), size)


def _ellipse(record: Mapping[str, str], size: Size) -> shapes.Rle | None:
    cx, cy, rx, ry = (float(record[name]) for name in ("cx", "cy", "rx", "ry"))
    return shapes.ellipse((cx, cy), (rx, ry), size, float(record.get("rotation") or 0))


_READERS = {"polygon": _polygon, "mask": _mask, "ellipse": _ellipse}

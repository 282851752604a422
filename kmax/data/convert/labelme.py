"""Labelme: a JSON file per image, with polygons, rectangles, circles and masks."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kmax.categories.kinds import LABELME
from kmax.data.convert import shapes
from kmax.data.convert.source import ClassInfo, Item, Region, Shapes, Size, Source
from kmax.data.convert.tree import Tree, read_json, split_of
from kmax.data.prepare.pool import parallel
from kmax.files import Json

AREAS = ("polygon", "rectangle", "circle", "mask")


@dataclass(frozen=True)
class _File:
    """What is kept of a file until it is converted."""

    name: str
    labels: tuple[str, ...]
    size: Size | None
    has_image: bool


def find(tree: Tree, workers: int = 0) -> Source | None:
    """The Labelme files of a source.

    Raises:
        ValueError: a file is damaged.
    """
    files = tree.of_kind(LABELME)
    if not files:
        return None
    items, names, left_out = [], dict[str, None](), Counter[str]()
    for file, found in zip(files, parallel(_scan, files, "read Labelme files", workers), strict=True):
        image_file = tree.image_files.find(found.name, file.parent)
        if image_file is None and not found.has_image:
            left_out[f"JSON whose image is missing ({found.name})"] += 1
            continue
        names.update(dict.fromkeys(found.labels))
        key = (
            tree.image_files.key(image_file)
            if image_file
            else file.relative_to(tree.root).with_suffix(".png").as_posix()
        )
        items.append(
            Item(key, image_file, frozenset(found.labels), split_of(file, tree.root), (file,), size=found.size)
        )
    without = len(set(tree.image_files.below(tree.images)) - {item.image_file for item in items})
    if without:
        left_out["image without a JSON file"] = without
    classes = tuple(ClassInfo(name) for name in sorted(names))
    return Source(LABELME, tuple(items), classes, _read, True, left_out=left_out, embedded=_embedded)


def _scan(file: Path) -> _File:
    content = read_json(file)
    height, width = content.get("imageHeight"), content.get("imageWidth")
    labels = tuple(dict.fromkeys(_label(shape) for shape in content["shapes"] if _kind(shape) in AREAS))
    size = (int(height), int(width)) if height and width else None
    return _File(str(content.get("imagePath") or ""), labels, size, bool(content.get("imageData")))


def _label(shape: Json) -> str:
    return str(shape.get("label") or "").strip()


def _kind(shape: Json) -> str:
    return str(shape.get("shape_type") or "polygon")  # files before version 3.5 know polygons only


def _read(item: Item, size: Size) -> Shapes:
    """Regions in the order in which Labelme shows them: the last one lies on top."""
    regions, left_out = [], Counter[str]()
    for order, shape in enumerate(read_json(item.files[0])["shapes"]):
        kind = _kind(shape)
        if kind not in AREAS:
            left_out[f"shape of type {kind}"] += 1
            continue
        rle = _READERS[kind](shape, size)
        if rle is None:
            left_out[f"{kind} without enough points"] += 1
            continue
        group = shape.get("group_id")
        regions.append(Region(_label(shape), rle, order, None if group is None else str(group)))
    return Shapes(tuple(regions), left_out)


def _polygon(shape: Json, size: Size) -> shapes.Rle | None:
    return shapes.polygons([np.ravel(shape["points"]).tolist()], size)


def _rectangle(shape: Json, size: Size) -> shapes.Rle | None:
    return shapes.rectangle(shape["points"], size)


def _circle(shape: Json, size: Size) -> shapes.Rle | None:
    """Labelme stores the center and a point of the rim."""
    if len(shape["points"]) != 2:
        return None
    center, rim = np.asarray(shape["points"], float)
    radius = float(np.hypot(*(rim - center)))
    return shapes.ellipse(center.tolist(), (radius, radius), size)


def _mask(shape: Json, size: Size) -> shapes.Rle | None:
    """Labelme stores a PNG and the corners of its box."""
    if not shape.get("mask") or not shape.get("points"):
        return None
    left, top = (int(n) for n in shape["points"][0])
    mask = np.asarray(_decoded(shape["mask"]))
    return shapes.bitmap(mask if mask.ndim == 2 else mask[..., 0], left, top, size)


_READERS = {"polygon": _polygon, "rectangle": _rectangle, "circle": _circle, "mask": _mask}


def _embedded(item: Item) -> bytes:
    """The image inside a JSON file, as a PNG."""
    with io.BytesIO() as file:
        _decoded(read_json(item.files[0])["imageData"]).convert("RGB").save(file, "PNG")
        return file.getvalue()


def _decoded(text: str) -> Image.Image:
    """An image in base 64.

    Raises:
        ValueError: it is damaged.
    """
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text)))
        image.load()
        return image
    except (OSError, SyntaxError) as error:
        raise ValueError(f"what is stored inside the JSON is no image ({error})") from error

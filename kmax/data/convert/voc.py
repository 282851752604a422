"""Pascal VOC segmentation: palette PNG of classes and of objects, as published or as CVAT exports them."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kmax.data.convert.class_list import ClassList, read_class_list, read_values
from kmax.data.convert.source import VOID_LABEL, ClassInfo, Item, LabelMap, Size, Source, Tag
from kmax.data.convert.tree import Tree
from kmax.data.prepare.pool import parallel

FORMAT = "Pascal VOC segmentation"
NAMES = ("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
         "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
         "tvmonitor")  # fmt: skip
BORDER = (224, 224, 192)  # the color of unlabeled pixels between objects, value 255
BACKGROUND = "background"


def find(tree: Tree, workers: int = 0) -> Source | None:
    """The images of a VOC folder that have a map of classes.

    Raises:
        ValueError: there are boxes alone, or no image fits a map.
    """
    folder = tree.folder("SegmentationClass")
    if folder is None:
        if tree.folder("JPEGImages") is not None and tree.folder("Annotations") is not None:
            raise ValueError(
                f"{tree.source} is Pascal VOC detection: boxes without masks; there is nothing to convert."
            )
        return None
    root = folder.parent
    classes = _class_list(root)
    splits = _splits(root)
    maps = sorted(folder.glob("*.png"))
    items, left_out = [], Counter[str]()
    for file, labels in zip(maps, parallel(partial(_labels, classes), maps, f"read {FORMAT}", workers), strict=True):
        image_file = tree.image_files.find(f"JPEGImages/{file.stem}.jpg", root) or _other_suffix(root, file.stem)
        if image_file is None:
            left_out["map without an image"] += 1
            continue
        objects = root / "SegmentationObject" / file.name
        files = (file, objects) if objects.is_file() else (file,)
        items.append(Item(tree.image_files.key(image_file), image_file, labels, splits.get(file.stem), files))
    if not items:
        raise ValueError(f"{folder} is {FORMAT}, but no image in {root / 'JPEGImages'} has the name of a map.")
    has_objects = any(len(item.files) > 1 for item in items)
    infos = tuple(
        ClassInfo(name, name != BACKGROUND and has_objects, color)
        for name, color in classes.names.items()
        if name != VOID_LABEL
    )
    return Source(FORMAT, tuple(items), infos, partial(_read, classes), left_out=left_out)


def _labels(classes: ClassList, file: Path) -> frozenset[str]:
    """The classes of a map, but for background and borders."""
    codes = np.unique(read_values(file, by_color=True)).tolist()
    return frozenset(classes.by_color.get(code, VOID_LABEL) for code in codes) - {VOID_LABEL, BACKGROUND}


def _class_list(root: Path) -> ClassList:
    """CVAT's `labelmap.txt`, or the 20 classes; by color, which palette PNG have as well."""
    for file in (root / "labelmap.txt", root.parent / "labelmap.txt"):
        if file.is_file():
            classes = read_class_list(file)
            return ClassList(file, {}, {_code(BORDER): VOID_LABEL, **classes.by_color})
    colors = {_code(color): name for name, color in zip(NAMES, color_map(len(NAMES)), strict=True)}
    return ClassList(root, {}, {**colors, _code(BORDER): VOID_LABEL})


def color_map(count: int) -> list[tuple[int, int, int]]:
    """VOC's colors: bit k of a value's three lowest bits goes to the highest free bit of red, green and blue."""
    colors = []
    for value in range(count):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (value >> (3 * bit + channel) & 1) << (7 - bit)
        colors.append((rgb[0], rgb[1], rgb[2]))
    return colors


def _code(color: tuple[int, int, int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _splits(root: Path) -> dict[str, str]:
    """Split by stem, of `ImageSets/Segmentation/{train,val,test}.txt`."""
    splits = {}
    for split in ("test", "val", "train"):
        file = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        if file.is_file():
            splits.update(dict.fromkeys(file.read_text("utf-8-sig").split(), split))
    return splits


def _other_suffix(root: Path, stem: str) -> Path | None:
    return next(iter(sorted((root / "JPEGImages").glob(f"{stem}.*"))), None)


def _read(classes: ClassList, item: Item, size: Size) -> LabelMap:
    """Objects with the class that most of their pixels have; what has a class but no object is one region of it."""
    codes = read_values(item.files[0], by_color=True)
    colors, labels = np.unique(codes, return_inverse=True)  # labels (H, W): index of the pixel's color
    labels = labels.reshape(codes.shape)
    names = [classes.by_color.get(code) for code in colors.tolist()]
    if None in names:
        color = colors.tolist()[names.index(None)]
        raise ValueError(
            f"{item.files[0]} is {FORMAT} with the color {color:06x}, which no class has: give labelmap.txt"
        )
    tags = {n: Tag(name or VOID_LABEL, crowd=bool(name) and name != BACKGROUND) for n, name in enumerate(names)}
    values = labels.astype(np.int32)
    if len(item.files) == 1:
        return LabelMap(values, {n: Tag(tag.label) for n, tag in tags.items()})
    objects = _objects(item.files[1])
    if objects.shape != codes.shape:
        raise ValueError(f"{item.files[1]} and {item.files[0]} are of different sizes")
    is_area = np.isin(labels, [n for n, name in enumerate(names) if name not in (VOID_LABEL, BACKGROUND)])
    left_out: Counter[str] = Counter()
    for number, obj in enumerate(np.unique(objects[objects > 0]).tolist(), len(names)):
        inside = (objects == obj) & is_area
        if not inside.any():
            left_out["object without a class"] += 1
            continue
        values[inside] = number
        tags[number] = Tag(tags[int(np.bincount(labels[inside]).argmax())].label)
    return LabelMap(values, tags, left_out)


def _objects(file: Path) -> np.ndarray:
    """Object numbers (H, W); 0 for background and borders."""
    with Image.open(file) as image:
        indexed = image.mode in ("P", "L")
    values = read_values(file, by_color=not indexed)
    values[values == (255 if indexed else _code(BORDER))] = 0
    return values

"""Semantic maps: a gray, palette or color PNG per image, and a list of classes."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kmax.data.convert.class_list import FILES, ClassList, palette, read_class_list, read_values
from kmax.data.convert.source import VOID_LABEL, ClassInfo, Item, LabelMap, Size, Source, Tag
from kmax.data.convert.tree import Tree, split_of
from kmax.data.prepare.pool import parallel

FORMAT = "semantic maps"
IMAGE_FOLDER = re.compile(r"^(images?|imgs?|jpegimages|photos?|images|rgb|leftimg8bit)$", re.IGNORECASE)
MAP_FOLDER = re.compile(
    r"^(.*?)[_-]?(masks?|labels?|annotations?|annot|gt|ground_?truth|semantic|segmentations?|segmentationclass)$",
    re.IGNORECASE,
)
MAP_NAME = re.compile(r"^(.+?)[_-](mask|labels?|labelids|labeltrainids|gt|seg|semantic|L)$", re.IGNORECASE)
UNLISTED_IS_VOID = (0, 255)


def find(tree: Tree, names: Path | None = None, workers: int = 0) -> Source | None:
    """Pairs of an image and a map: in two folders (`images`, `masks`, `labels`, …), or side by side (`x.jpg`,
    `x_mask.png`).

    Raises:
        FileNotFoundError: there are pairs, but no list of classes.
        ValueError: a map has a value that the list lacks.
    """
    maps = {key: file for file in tree.named(".png", ".tif", ".tiff", ".bmp") if (key := _map_key(file, tree.root))}
    image_files = {
        _image_key(file, tree.images): file
        for file in tree.image_files.below(tree.images)
        if _map_key(file, tree.images) is None
    }
    pairs = [(image_files[key], maps[key]) for key in sorted(maps) if key in image_files]
    if not pairs:
        return None
    classes = _class_list(tree, names)
    left_out = Counter(
        {"image without a map": len(image_files) - len(pairs), "map without an image": len(maps) - len(pairs)}
    )
    found = parallel(partial(_labels, classes), [file for _, file in pairs], "read semantic maps", workers)
    items = [_item(*pair, labels, classes, tree) for pair, labels in zip(pairs, found, strict=True)]
    return Source(
        FORMAT,
        tuple(items),
        _classes(classes, pairs[0][1]),
        partial(_read, classes),
        owns_background=False,
        left_out=+left_out,
    )


def _class_list(tree: Tree, names: Path | None) -> ClassList:
    if names is not None:
        return read_class_list(names)
    found = [file for wanted in FILES for file in tree.files if file.name.lower() == wanted]
    if not found:
        raise FileNotFoundError(
            f"{tree.source} holds {FORMAT}, but no list of classes: write classes.txt there, a line 'value name' per "
            "class, or give a file with --names."
        )
    return read_class_list(found[0])


def _classes(classes: ClassList, example: Path) -> tuple[ClassInfo, ...]:
    """Stuff, each with the color of the list or of the maps' palette."""
    shown = palette(example)
    value_of = {name: value for value, name in classes.by_value.items()}
    return tuple(
        ClassInfo(name, False, color or shown.get(value_of.get(name, -1))) for name, color in classes.names.items()
    )


def _map_key(file: Path, root: Path) -> tuple[str, ...] | None:
    """The path of a map without the parts of the name that mark it as a map; None if there are no such parts."""
    parts = file.relative_to(root).parts if file.is_relative_to(root) else (file.name,)
    folders, is_map = [], False
    for folder in parts[:-1]:
        found = MAP_FOLDER.match(folder)
        is_map = is_map or found is not None
        folders.append(found.group(1) if found else folder)
    named = MAP_NAME.match(file.stem)
    stem = named.group(1) if named else file.stem
    return _key(folders, stem) if is_map or named else None


def _image_key(file: Path, root: Path) -> tuple[str, ...]:
    return _key(file.relative_to(root).parts[:-1], file.stem.removesuffix("_leftImg8bit"))


def _key(folders: list[str] | tuple[str, ...], stem: str) -> tuple[str, ...]:
    return (*(folder.lower() for folder in folders if folder and not IMAGE_FOLDER.match(folder)), stem)


def _labels(classes: ClassList, file: Path) -> frozenset[str]:
    """The classes in a map.

    Raises:
        ValueError: it has a value that is not listed.
    """
    values = np.unique(_values(file, classes)).tolist()
    table = classes.by_color if _by_color(file, classes) else classes.by_value
    unknown = [value for value in values if value not in table and value not in UNLISTED_IS_VOID]
    if unknown:
        what = f"the color {unknown[0]:06x}" if _by_color(file, classes) else f"the value {unknown[0]}"
        raise ValueError(
            f"{file} is one of the {FORMAT} and has {what}, which {classes.file} lacks: add it there, as a class or "
            "as 'void'."
        )
    return frozenset(table[value] for value in values if value in table)


def _item(image_file: Path, file: Path, labels: frozenset[str], classes: ClassList, tree: Tree) -> Item:
    split = split_of(image_file, tree.images) or split_of(file, tree.root)
    return Item(tree.image_files.key(image_file), image_file, labels, split, (file, classes.file))


def _by_color(file: Path, classes: ClassList) -> bool:
    """Colors count where the list has them alone, or where the map has them."""
    if not classes.by_color or not classes.by_value:
        return bool(classes.by_color)
    with Image.open(file) as image:
        return image.mode in ("RGB", "RGBA")


def _values(file: Path, classes: ClassList) -> np.ndarray:
    return read_values(file, _by_color(file, classes))


def _read(classes: ClassList, item: Item, size: Size) -> LabelMap:
    file = item.files[0]
    table = classes.by_color if _by_color(file, classes) else classes.by_value
    tags = {value: Tag(name) for value, name in table.items()}
    if 255 not in tags and not _by_color(file, classes):
        tags[255] = Tag(VOID_LABEL)
    return LabelMap(_values(file, classes), tags)

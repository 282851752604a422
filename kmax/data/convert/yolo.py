"""YOLO segmentation: a text file per image, each line a class and the corners of a polygon as fractions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from kmax.data.convert import shapes
from kmax.data.convert.source import ClassInfo, Item, Region, Shapes, Size, Source
from kmax.data.convert.tree import SPLITS, Tree, split_of
from kmax.files import Json

FORMAT = "YOLO segmentation"
BOX = 5  # numbers in a line of a detection label: class and box


def find(tree: Tree) -> Source | None:
    """Images and label files of a YOLO data set: by its YAML, or by `classes.txt` beside `images` and `labels`.

    Raises:
        ValueError: the YAML names no classes, or there are boxes alone.
    """
    config = _config(tree)
    if config is None:
        return None
    file, content = config
    names = _names(content.get("names"), file)
    splits = _splits(content, file, tree)
    items: list[Item] = []
    left_out: Counter[str] = Counter()
    sizes: Counter[bool] = Counter()
    for split, image_files in splits.items():
        for image_file in image_files:
            item = _item(image_file, split, names, tree, sizes)
            items.append(item)
    if sizes[True] and not sizes[False]:
        raise ValueError(f"{file} is YOLO detection: boxes without masks; export the polygons (YOLO segmentation).")
    if not items:
        raise ValueError(f"{file} is {FORMAT}, but no image lies where it says: unpack the whole export.")
    classes = tuple(ClassInfo(name) for name in names.values())
    return Source(FORMAT, tuple(items), classes, partial(_read, names), left_out=left_out)


def _config(tree: Tree) -> tuple[Path, Json] | None:
    for file in tree.named(".yaml", ".yml"):
        try:
            content = yaml.safe_load(file.read_text("utf-8-sig"))
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
        if isinstance(content, dict) and "names" in content:
            return file, content
    labels = tree.folder("labels")
    has_text = labels is not None and any(
        f.is_relative_to(labels) and f.name != "classes.txt" for f in tree.named(".txt")
    )
    for file in tree.files if has_text else ():
        if file.name in ("classes.txt", "obj.names"):
            names = [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
            return file, {"names": names, "train": "images"}
    return None


def _names(names: object, file: Path) -> dict[int, str]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{file} is {FORMAT}, but its 'names' is neither a list nor a table of classes: mend it.")
    return {int(number): str(name) for number, name in names.items()}


def _splits(content: Json, file: Path, tree: Tree) -> dict[str | None, list[Path]]:
    """Images by split; without a second split all of them, to be split."""
    found: dict[str | None, list[Path]] = {}
    for key in ("train", "val", "valid", "test"):
        entries = content.get(key)
        if entries:
            image_files = [p for entry in _listed(entries) for p in _images_of(entry, content, file, tree)]
            found.setdefault(SPLITS[key], []).extend(image_files)
    by_split = {split: list(dict.fromkeys(image_files)) for split, image_files in found.items() if image_files}
    if by_split.get("train") == by_split.get("val") or len(by_split) == 1:  # one folder, given twice or once
        return {None: next(iter(by_split.values()), [])}
    return by_split


def _listed(entries: object) -> list[str]:
    return [str(entry) for entry in entries] if isinstance(entries, list) else [str(entries)]


def _images_of(entry: str, content: Json, file: Path, tree: Tree) -> list[Path]:
    """The images of one entry: a folder or a list of paths; `path` and leading `..` may be somebody else's disk."""
    name = entry.replace("\\", "/")
    ends = [name, name.lstrip("./")]
    bases = [file.parent, file.parent / str(content.get("path") or ""), tree.root, tree.images]
    for path in [base / end for end in ends for base in bases]:
        if path.is_dir():
            return tree.image_files.below(path.resolve())
        if path.is_file():
            lines = path.read_text("utf-8-sig").splitlines()
            found = (tree.image_files.find(line.strip(), file.parent) for line in lines if line.strip())
            return [image_file for image_file in found if image_file is not None]
    return []


def _item(image_file: Path, split: str | None, names: Mapping[int, str], tree: Tree, boxes: Counter[bool]) -> Item:
    label = _label_file(image_file, tree)
    numbers = _lines(label) if label is not None else []
    for number, values in numbers:
        if number not in names:
            raise ValueError(f"{label} is {FORMAT} with class {number}, which the list of names lacks: mend the list.")
        boxes[len(values) + 1 == BOX] += 1
    labels = frozenset(names[number] for number, values in numbers if len(values) + 1 != BOX)
    split = split if split is not None else split_of(image_file, tree.images)
    return Item(tree.image_files.key(image_file), image_file, labels, split, (label,) if label is not None else ())


def _label_file(image_file: Path, tree: Tree) -> Path | None:
    """The last folder `images` on the way becomes `labels`; else the text lies beside the image. An image without
    a file shows background alone."""
    parts = list(image_file.parts)
    candidates = [image_file.with_suffix(".txt")]
    for depth in range(len(parts) - 2, len(tree.images.parts) - 1, -1):
        if parts[depth].lower() == "images":
            candidates.insert(0, Path(*parts[:depth], "labels", *parts[depth + 1 :]).with_suffix(".txt"))
            break
    return next((file for file in candidates if file.is_file()), None)


def _lines(file: Path) -> list[tuple[int, np.ndarray]]:
    """Class and coordinates of every line.

    Raises:
        ValueError: a line is not made of numbers.
    """
    found = []
    for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), 1):
        words = line.split()
        if words:
            try:
                found.append((int(float(words[0])), np.array(words[1:], float)))
            except ValueError:
                raise ValueError(f"Line {number} of {file} is no line of {FORMAT}: {line[:60]!r}.") from None
    return found


def _read(names: Mapping[int, str], item: Item, size: Size) -> Shapes:
    regions, left_out = [], Counter[str]()
    for number, values in _all_lines(item.files):
        if len(values) + 1 == BOX:
            left_out["box, which is no mask"] += 1
            continue
        scaled = values[: len(values) // 2 * 2].reshape(-1, 2) * (size[1], size[0])
        rle = shapes.polygons([scaled.ravel().tolist()], size)
        if rle is None:
            left_out["polygon without three points"] += 1
        else:
            regions.append(Region(names[number], rle))
    return Shapes(tuple(regions), left_out)


def _all_lines(files: Iterable[Path]) -> list[tuple[int, np.ndarray]]:
    return [line for file in files for line in _lines(file)]

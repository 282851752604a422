"""The classes of a dataset: names, things and stuff, dataset ids and colors, read from JSON."""

from __future__ import annotations

import colorsys
import json
import mmap
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from kmax.categories.checks import COLOR, TEXT, TRUTH, Table, color, integer, read_json, shown
from kmax.categories.kinds import CONVERTER, kind_of
from kmax.files import Json

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Category:
    """One class: its `id` in the dataset's files, name, thing or stuff, and RGB color."""

    id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Categories:
    """The classes of a dataset in the order of their contiguous labels 0 … K−1.

    `by_id`: they come from a list of classes, which may rename the classes of annotation files; ids then decide which
    class is meant.
    """

    name: str
    classes: tuple[Category, ...]
    by_id: bool = False

    def __post_init__(self) -> None:
        if len(set(self.ids)) != len(self.classes) or not self.classes:
            raise ValueError(f"The categories of {self.name} are empty or repeat an id.")

    @property
    def num_classes(self) -> int:
        """K, things and stuff, without void."""
        return len(self.classes)

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """Dataset ids by label."""
        return tuple(category.id for category in self.classes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names by label."""
        return tuple(category.name for category in self.classes)

    @cached_property
    def is_thing(self) -> tuple[bool, ...]:
        """Things (True) and stuff by label."""
        return tuple(category.is_thing for category in self.classes)

    @cached_property
    def label_of(self) -> dict[int, int]:
        """Label by dataset id."""
        return {category.id: label for label, category in enumerate(self.classes)}

    def to_dict(self) -> Json:
        """Plain containers, as in the JSON files; goes into checkpoints."""
        classes = [
            {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)} for c in self.classes
        ]
        return {"name": self.name, "classes": classes, **({"by_id": True} if self.by_id else {})}

    @classmethod
    def from_dict(cls, data: Json) -> Categories:
        """The inverse of `to_dict`.

        Raises:
            ValueError: a class lacks a field, or has something else there.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("classes"), list):
            raise ValueError(f"Categories need name and classes with id, name, isthing, color; wrong: {shown(data)}.")
        name = str(data.get("name", "categories"))
        return cls(name, read_classes(data["classes"], f"Categories {name}", "classes"), data.get("by_id") is True)


LARGEST_CATEGORY = (1 << 31) - 1


def read_classes(entries: Sequence[object], path: Path | str, key: str) -> tuple[Category, ...]:
    """The classes of a user's list; `key` is the name of the list in the file.

    Raises:
        ValueError: an entry without id, name, isthing and color, or with something else there.
    """
    table = Table(path, entries, lambda number: f"{key}[{number}]")
    ids = table.column("id", integer(0, LARGEST_CATEGORY))
    names, things = table.column("name", TEXT), table.column("isthing", TRUTH)
    colors = [color(value) for value in table.column("color", COLOR)]
    return tuple(
        Category(id_, name, bool(thing), rgb)
        for id_, name, thing, rgb in zip(ids, names, things, colors, strict=True)
        if rgb is not None
    )


def all_categories() -> list[Categories]:
    """The categories of all datasets that come with kmax."""
    return [load_categories(file.stem) for file in sorted(FOLDER.glob("*.json"))]


def load_categories(name: str) -> Categories:
    """The categories of a dataset by name (`coco`, `cityscapes`, `ade20k`, `shapes`) or from a JSON file: one like
    theirs, or a panoptic annotation file in COCO's format, whose `categories` are taken in their order.

    Raises:
        FileNotFoundError, ValueError: no such file; no such name, or a file without usable categories.
    """
    if name.lower().endswith(".json"):
        return _from_file(Path(name).expanduser())
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise ValueError(f"The list of classes {name} is unknown: choose one of {known}, or give a JSON file.")
    return replace(Categories.from_dict(json.loads(path.read_text("utf-8"))), by_id=True)


def _from_file(path: Path) -> Categories:
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path} to read classes from: check the dataset's folder and the list of classes; annotations "
            f"of other tools are converted with {CONVERTER}."
        )
    entries = _categories_section(path)
    if entries is not None:
        return _named(path.stem, entries, path, "categories")
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("classes"), list):
        return replace(_named(str(content.get("name", path.stem)), content["classes"], path, "classes"), by_id=True)
    if isinstance(content, dict) and isinstance(content.get("categories"), list):
        return _named(path.stem, content["categories"], path, "categories")
    raise ValueError(
        f"{path} has neither categories (COCO panoptic) nor classes (as in kmax/categories) but is {kind_of(content)}: "
        f"annotations of other tools are converted with {CONVERTER}."
    )


def _named(name: str, entries: Sequence[object], path: Path, key: str) -> Categories:
    """The classes of a file; those without a color get one.

    Raises:
        ValueError: no class; an entry that is wrong; an id or a name that occurs twice.
    """
    lacking = [n for n, entry in enumerate(entries) if isinstance(entry, dict) and "isthing" not in entry]
    if lacking:
        raise ValueError(
            f"{path} is no panoptic JSON, since a category lacks 'isthing' ({key}[{lacking[0]}]; in COCO instances all "
            f"do): convert it with {CONVERTER}."
        )
    filled: list[object] = list(entries)
    for number, entry in enumerate(entries):
        if isinstance(entry, dict) and entry.get("color") is None:
            filled[number] = {**entry, "color": list(default_color(number))}
    classes = read_classes(filled, path, key)
    for what, values in (("an id", [c.id for c in classes]), ("a name", [c.name.strip() for c in classes])):
        value, count = Counter(values).most_common(1)[0] if values else (None, 0)
        if count > 1:
            repeated = " and ".join(f"{key}[{n}]" for n, other in enumerate(values) if other == value)
            raise ValueError(f"{path}: {repeated} repeat {what}, {shown(value)}: give each class its own.")
    if not classes:
        raise ValueError(f"{path}: its {key} are empty: list at least one class.")
    return Categories(name, classes)


def _categories_section(path: Path) -> list[object] | None:
    """The list under the key `categories`, without parsing the rest of a file of perhaps hundreds of megabytes; None
    if the whole file must be parsed: the key does not occur exactly once, or the file is in UTF-16."""
    decoder = json.JSONDecoder()
    with path.open("rb") as file:
        if not path.stat().st_size:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            starts = [match.end() for match in re.finditer(rb'"categories"\s*:\s*', content)]
            if len(starts) == 1 and content[starts[0] : starts[0] + 1] == b"[":
                try:
                    found = decoder.decode(_balanced_list(content, starts[0]).decode())
                except ValueError:
                    return None
                return found if isinstance(found, list) else None
    return None


def _balanced_list(content: mmap.mmap, start: int, limit: int = 1 << 24) -> bytes:
    """The bytes from the `[` at `start` to its `]`; categories hold flat objects, with lists only for colors."""
    depth = 0
    for match in re.finditer(rb'"(?:[^"\\]|\\.)*"|\[|\]', content[start : start + limit]):
        depth += {b"[": 1, b"]": -1}.get(match.group(), 0)
        if not depth:
            return content[start : start + match.end()]
    return b""


def default_color(label: int) -> tuple[int, int, int]:
    """An RGB color for a class without one: hues a golden angle apart, in three degrees of brightness."""
    rgb = colorsys.hsv_to_rgb(label * 0.618034 % 1, (0.85, 0.6)[label % 2], (0.95, 0.75, 0.55)[label % 3])
    return round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])

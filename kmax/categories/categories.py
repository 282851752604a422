"""The classes of a dataset: names, things and stuff, dataset ids and colours, read from JSON."""

from __future__ import annotations

import colorsys
import json
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kmax.files import Json

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Category:
    """One class: its `id` in the dataset's files, name, thing or stuff, and RGB colour."""

    id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Categories:
    """The classes of a dataset in the order of their contiguous labels 0 … K−1."""

    name: str
    classes: tuple[Category, ...]

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
        return {"name": self.name, "classes": classes}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Categories:
        """The inverse of `to_dict`.

        Raises:
            ValueError: a class lacks a field.
        """
        try:
            classes = tuple(
                Category(
                    int(c["id"]), str(c["name"]), bool(c["isthing"]), (c["color"][0], c["color"][1], c["color"][2])
                )
                for c in data["classes"]
            )
            return cls(str(data["name"]), classes)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"Categories need name and classes with id, name, isthing, color; wrong: {error}."
            ) from error


def all_categories() -> list[Categories]:
    """The categories of all datasets that come with kmax."""
    return [load_categories(file.stem) for file in sorted(FOLDER.glob("*.json"))]


def load_categories(name: str) -> Categories:
    """The categories of a dataset by name (`coco`, `cityscapes`, `ade20k`, `shapes`) or from a JSON file: one like
    theirs, or a panoptic annotation file in COCO's format, whose `categories` are taken in their order.

    Raises:
        FileNotFoundError, ValueError: no such file; no such name, or a file without usable categories.
    """
    if name.endswith(".json"):
        return _from_file(Path(name))
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise ValueError(f"dataset.categories={name} is unknown: choose one of {known}, or give a JSON file.")
    return Categories.from_dict(json.loads(path.read_text(encoding="utf-8")))


CONVERTER = "scripts/prepare_own.py"


def _from_file(path: Path) -> Categories:
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path} to read classes from: check dataset.root and dataset.categories; annotations of other "
            f"tools are converted with {CONVERTER}."
        )
    entries = _categories_section(path)
    if entries is None:
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON ({error}): get the file again.") from error
        if isinstance(content, dict) and "classes" in content:
            return Categories.from_dict(content)
        raise ValueError(
            f"{path} has neither categories (COCO panoptic) nor classes (as in kmax/categories): annotations of "
            f"other tools are converted with {CONVERTER}."
        )
    if any("isthing" not in entry for entry in entries):
        raise ValueError(
            f"{path} is no panoptic JSON, since a category lacks 'isthing' (in COCO instances all do): convert it with "
            f"{CONVERTER}."
        )
    classes = [{"color": default_color(n), **entry} for n, entry in enumerate(entries)]
    return Categories.from_dict({"name": path.stem, "classes": classes})


def _categories_section(path: Path) -> list[Json] | None:
    """The list under the key `categories`, without parsing the rest of a file of perhaps hundreds of megabytes."""
    decoder = json.JSONDecoder()
    with path.open("rb") as file:
        if not path.stat().st_size:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for match in re.finditer(rb'"categories"\s*:\s*(?=\[)', content):
                text = _balanced_list(content, match.end())
                try:
                    found: list[Json] = decoder.decode(text.decode())
                except ValueError:
                    continue
                if all(isinstance(entry, dict) for entry in found):
                    return found
    return None


def _balanced_list(content: mmap.mmap, start: int, limit: int = 1 << 24) -> bytes:
    """The bytes from the `[` at `start` to its `]`; categories hold flat objects, with lists only for colours."""
    depth = 0
    for match in re.finditer(rb'"(?:[^"\\]|\\.)*"|\[|\]', content[start : start + limit]):
        depth += {b"[": 1, b"]": -1}.get(match.group(), 0)
        if not depth:
            return content[start : start + match.end()]
    return b""


def default_color(label: int) -> tuple[int, int, int]:
    """An RGB colour for a class without one: hues a golden angle apart, in three degrees of brightness."""
    rgb = colorsys.hsv_to_rgb(label * 0.618034 % 1, (0.85, 0.6)[label % 2], (0.95, 0.75, 0.55)[label % 3])
    return round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])

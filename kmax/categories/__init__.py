"""The classes of a dataset: names, things and stuff, dataset ids and colours, read from JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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

    def to_dict(self) -> dict[str, Any]:
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


def load_categories(name: str) -> Categories:
    """The categories of a dataset by name (`coco`, `cityscapes`, `ade20k`, `shapes`) or from a JSON file like theirs.

    Raises:
        ValueError: no such name or file.
    """
    path = Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise ValueError(f"dataset.categories={name} is unknown: choose one of {known}, or give a JSON file.")
    return Categories.from_dict(json.loads(path.read_text()))

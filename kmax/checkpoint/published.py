"""The published checkpoints by name: their addresses, their models, and their reported quality (published.json)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from kmax.files import Json

REGISTRY = Path(__file__).with_name("published.json")
ARCHIVE = ".tar.gz"


@dataclass(frozen=True)
class Published:
    """One published file.

    `urls` are addresses that a person can open, the preferred one first. A model has an `experiment` (of
    conf/experiment, with `overrides`) whose configuration it gets; ImageNet weights have the `backbone` that they are
    for. `variants` are the families of the backbone that names and shapes do not distinguish. `parameters` in millions,
    `gflops` at `size` (H, W), both without the semantic head; `published` are the reported numbers in percent.
    """

    name: str
    model: str
    urls: tuple[str, ...]
    title: str
    code: str
    family: str
    dataset: str
    format: str
    source: str
    license: str
    paper: str = ""
    experiment: str = ""
    overrides: tuple[str, ...] = ()
    backbone: str = ""
    variants: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    parameters: float | None = None
    gflops: int | None = None
    published: Mapping[str, float] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """`.tar.gz` of an archive with a TensorFlow checkpoint, else `.pth`."""
        return ARCHIVE if self.format == "deeplab2" else ".pth"

    @property
    def file_name(self) -> str:
        """Name of the published file, if its address tells it."""
        name = urlsplit(self.urls[0]).path.rpartition("/")[2]
        return name if name.endswith(self.suffix) else f"{self.name}{self.suffix}"

    def provenance(self) -> Json:
        """Where the weights come from, as a converted checkpoint carries it."""
        about = {"name": self.name, "model": f"{self.family}, {self.model} ({self.code})", "url": self.urls[0]}
        numbers = {"published": dict(self.published), "evaluated_on": self.title}
        return {**about, "source": self.source, "paper": self.paper, "license": self.license, **numbers}


@cache
def published() -> dict[str, Published]:
    """All published files by name, in the order of the model zoo."""
    found: dict[str, Published] = {}
    for group in json.loads(REGISTRY.read_text(encoding="utf-8"))["groups"]:
        shared = {key: value for key, value in group.items() if key != "files"}
        for file in group["files"]:
            options = {**shared, **file}
            lists = {key: tuple(value) for key, value in options.items() if isinstance(value, list)}
            found[file["name"]] = Published(**{**options, **lists})
    return found


def find_published(name: str) -> Published:
    """The published file of that name.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    if name in published():
        return published()[name]
    raise ValueError(f"The model zoo has nothing called {name}{suggestion(name)}")


def suggestion(name: str) -> str:
    """`: did you mean …?`, if a name of the model zoo is similar."""
    near = get_close_matches(name, published(), n=3, cutoff=0.6)
    return f": did you mean {' or '.join(near)}?" if near else " (docs/model_zoo.md lists the names)"

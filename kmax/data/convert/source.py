"""The common form of all formats: a `Source` of items, and the annotation of one item.

H×W is the size of an image. A format's file has one function `find`, which returns a `Source` or None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Size = tuple[int, int]  # height, width
Record = Mapping[str, Any]  # one entry of somebody's JSON, already named by class
Rle = Record  # a run-length code of pycocotools
VOID_LABEL = ""
OBJECT = "object"  # key of a record whose value is another library's and has no stable text


@dataclass(frozen=True)
class ClassInfo:
    """A class as the source names it; None where the source does not say."""

    name: str
    is_thing: bool | None = None
    color: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Item:
    """One image of a source.

    `key` is its name there, unique and with `/` between the parts; `image_file` is None where it is embedded in the
    annotation. `labels` are the classes that occur. `files` are its own annotation files, `records` its entries of a
    file that describes many images. `size` is the size that the annotation declares.
    """

    key: str
    image_file: Path | None
    labels: frozenset[str] = frozenset()
    split: str | None = None
    files: tuple[Path, ...] = ()
    records: tuple[Record, ...] = ()
    size: Size | None = None


@dataclass(frozen=True)
class Region:
    """One annotated region: a run-length code of pycocotools and its class.

    Regions of one `group` and class are parts of one segment. Regions of higher `order` are on top.
    """

    label: str
    rle: Rle
    order: float = 0
    group: str | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Shapes:
    """Regions that may overlap, and what could not be read, counted by reason."""

    regions: tuple[Region, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Tag:
    """What a value of a label map means; the class `VOID_LABEL` is unlabeled whatever the rules say."""

    label: str
    crowd: bool = False


@dataclass(frozen=True)
class LabelMap:
    """Values (H, W) int32 and what they mean; a value without a tag belongs to nothing."""

    values: np.ndarray
    tags: Mapping[int, Tag]
    left_out: Mapping[str, int] = field(default_factory=dict)


Annotation = Shapes | LabelMap


@dataclass(frozen=True)
class Source:
    """A recognized source.

    `read(item, size)` gives the annotation of one item; it is sent to other processes. `is_ordered`: the format says
    which region is on top. `owns_background`: pixels without annotation are background, not unknown. `left_out` counts
    what is not an item, by reason. `embedded(item)` gives the bytes of an image that is inside the annotation.
    """

    format: str
    items: tuple[Item, ...]
    classes: tuple[ClassInfo, ...]
    read: Callable[[Item, Size], Annotation]
    is_ordered: bool = False
    owns_background: bool = True
    left_out: Mapping[str, int] = field(default_factory=dict)
    embedded: Callable[[Item], bytes] | None = None
    in_one_process: bool = False

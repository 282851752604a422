"""The content of a user's panoptic JSON (COCO's format), checked entry by entry, as plain columns."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from kmax.categories import Listed
from kmax.categories.categories import LARGEST_CATEGORY
from kmax.categories.checks import ID, LIST, TEXT, TRUTH, Kind, Table, integer, shown
from kmax.categories.kinds import COCO_PANOPTIC, CONVERTER, kind_of
from kmax.files import Json

LARGEST_ID = (1 << 24) - 1  # three bytes of a PNG
_ID = integer(1, LARGEST_ID)
SEGMENT_ID = Kind(f"{_ID.words} (ids start at 1, since 0 is unlabeled)", _ID.one, _ID.all)


@dataclass(frozen=True)
class Content:
    """Columns of `images` (`image_*`), of `annotations` (`owner`, `png_name`, `segments`) and of all their segments one
    after the other (`segment_id`, `category_id`, `crowd`); `categories` is empty where the file has none."""

    image_id: list[int | str]
    image_name: list[str]
    owner: list[int | str]
    png_name: list[str]
    segments: list[list[Json]]
    segment_id: list[int]
    category_id: list[int]
    crowd: list[int]
    categories: list[Listed]


def check_panoptic(content: Any, path: Path) -> Content:
    """The columns of a file's content; `path` is for messages.

    Raises:
        ValueError: another format, or an entry that is wrong; the message names it.
    """
    _check_format(content, path)
    images = Table(path, content["images"], lambda n: f"images[{n}]")
    annotations = Table(path, content["annotations"], lambda n: f"annotations[{n}]{_png(content, n)}")
    segments = annotations.column("segments_info", LIST)
    ends = list(accumulate(map(len, segments)))

    def where(number: int) -> str:
        owner = bisect_right(ends, number)
        return f"{annotations.where(owner)}.segments_info[{number - (ends[owner - 1] if owner else 0)}]"

    table = Table(path, list(chain.from_iterable(segments)), where)
    return Content(
        image_id=images.column("id", ID),
        image_name=images.column("file_name", TEXT),
        owner=annotations.column("image_id", ID),
        png_name=annotations.column("file_name", TEXT),
        segments=segments,
        segment_id=table.column("id", SEGMENT_ID),
        category_id=table.column("category_id", integer(0, LARGEST_CATEGORY)),
        crowd=table.column("iscrowd", TRUTH, default=0),
        categories=_categories(content, path),
    )


def _check_format(content: object, path: Path) -> None:
    """Check that the lists and their first entries are of COCO's panoptic format."""
    kind = kind_of(content)
    lists = [content.get(key) for key in ("images", "annotations")] if isinstance(content, Mapping) else [None]
    first = next(iter(lists[-1]), None) if isinstance(lists[-1], list) else None
    other = isinstance(first, Mapping) and "segments_info" not in first and kind != COCO_PANOPTIC
    if None in lists or other:
        raise ValueError(f"{path} is not panoptic but {kind}: convert it with {CONVERTER}.")
    for key, entries in zip(("images", "annotations"), lists, strict=True):
        if not isinstance(entries, list):
            raise ValueError(f"{path}: {key} is {shown(entries)}, but must be a list.")
    if isinstance(first, Mapping) and "pan_seg_file_name" in first and "file_name" not in first:
        raise ValueError(
            f"{path} is in the notation of detectron2 (pan_seg_file_name), not of COCO (file_name): convert it with "
            f"{CONVERTER}."
        )


def _categories(content: Json, path: Path) -> list[Listed]:
    entries = content.get("categories")
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise ValueError(f"{path}: categories is {shown(entries)}, but must be a list.")
    table = Table(path, entries, lambda n: f"categories[{n}]")
    ids, names = table.column("id", integer(0, LARGEST_CATEGORY)), table.column("name", TEXT)
    things = table.column("isthing", TRUTH, default=0)
    for what, values in (("id", ids), ("name", names)):
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise ValueError(f"{path}: its categories have the {what} {shown(twice)} twice: give each class its own.")
    kinds = [bool(t) if "isthing" in entry else None for t, entry in zip(things, entries, strict=True)]
    return [Listed(*row) for row in zip(ids, names, kinds, strict=True)]


def _png(content: Json, number: int) -> str:
    """The PNG name of an annotation in brackets, if it has one: people look for names, not for numbers."""
    entry = content["annotations"][number]
    name = entry.get("file_name") if isinstance(entry, dict) else None
    return f" ({name})" if TEXT.one(name) else ""

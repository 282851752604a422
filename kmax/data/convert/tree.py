"""The files of a source, listed once, and what its JSON files are."""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from kmax.categories.kinds import kind_of
from kmax.data.convert.image_files import ImageFiles
from kmax.files import walk_files

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SPLIT = re.compile(r"(?:^|[^a-z])(training|train|validation|valid|val|testing|test)(?:[^a-z]|$)", re.IGNORECASE)


class Tree:
    """A source on disk: a folder, or one annotation file with the images around it.

    Hidden files and folders, and the folder `without` (where results go), are left out.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """

    def __init__(self, source: Path, images: Path | None = None, without: Path | None = None) -> None:
        if not source.exists():
            raise FileNotFoundError(f"There is no {source}: give the folder with your annotations and images.")
        self.source = source.resolve()
        self.root = self.source if self.source.is_dir() else _around(self.source)
        self._without = without.resolve() if without else None
        self.images = images.resolve() if images else self.root
        if images is not None and not self.images.is_dir():
            raise FileNotFoundError(f"--images {images} is no folder: give the one with the images.")

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """All files of the source; only the annotation itself if the source is a file."""
        return tuple(self._walk(self.root)) if self.source.is_dir() else (self.source,)

    @cached_property
    def image_files(self) -> ImageFiles:
        """The images of the source, or of the folder that was given for them."""
        listed = self.files if self.source.is_dir() and self.images == self.root else self._walk(self.images)
        return ImageFiles(self.images, listed)

    def _walk(self, root: Path) -> list[Path]:
        return walk_files(root, lambda folder: folder.resolve() == self._without)[0]

    def named(self, *suffixes: str) -> list[Path]:
        """Files with one of these suffixes, in lower case."""
        return [file for file in self.files if file.suffix.lower() in suffixes]

    def folder(self, name: str) -> Path | None:
        """The folder of this name at the top or one level below."""
        for folder in (self.root, *sorted(p for p in self.root.iterdir() if p.is_dir())):
            if (folder / name).is_dir():
                return folder / name
        return None

    @cached_property
    def json_files(self) -> dict[Path, str]:
        """The kind of each JSON file; of a folder with many files, one per image, only the first ten are read."""
        kinds: dict[Path, str] = {}
        seen: dict[Path, list[str]] = {}
        for file in self.named(".json"):
            before = seen.setdefault(file.parent, [])
            kind = before[0] if len(before) >= 10 and len(set(before)) == 1 else kind_of(read_json(file))
            before.append(kind)
            kinds[file] = kind
        return kinds

    def of_kind(self, kind: str) -> list[Path]:
        """The JSON files of a kind."""
        return [file for file, other in self.json_files.items() if other == kind]


def _around(file: Path) -> Path:
    """The folder in which the images of an annotation file are looked for."""
    return file.parent.parent if file.parent.name.lower() in ("annotations", "labels", "json") else file.parent


def read_json(path: Path) -> Any:
    """The content of a JSON file, in UTF-8 or UTF-16, with or without a mark of its byte order.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return json.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): export or save it again.") from error


def split_of(path: Path, root: Path, by_name: bool = False) -> str | None:
    """The split that a folder around a file tells: train, val or test; with `by_name` also the file's own name, as of
    an annotation file for many images. An image may be called `train_station.jpg`."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else (path.name,)
    names = [*((Path(parts[-1]).stem,) if by_name and parts else ()), *reversed(parts[:-1])]
    found = next((match for name in names if (match := _SPLIT.search(name))), None)
    return SPLITS[found.group(1).lower()] if found else None

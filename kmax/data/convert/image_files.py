"""Images of a source: finding them by the names that annotation tools write, and their size as a viewer shows it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np
from PIL import Image

from kmax.data.convert.source import Size
from kmax.images import IMAGE_SUFFIXES, open_image

ORIENTATION = 0x0112  # the EXIF tag
UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before a name


class ImageFiles:
    """All images below a folder, found by whatever name an annotation has for them."""

    def __init__(self, root: Path, files: Iterable[Path]) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for file in files:
            if file.suffix.lower() in IMAGE_SUFFIXES:
                self._by_name[file.name.casefold()].append(file)

    def find(self, name: str, near: Path | None = None) -> Path | None:
        """The image that an annotation calls `name`; None if there is none, or several that fit equally well.

        A path counts from the annotation's folder `near`, then from any folder whose last parts agree; of a name such
        as `../../upload/1/f00dcafe-x.jpg` the end is what counts.
        """
        parts = [part for part in PurePosixPath(_plain(name)).parts if part not in ("..", ".", "/")]
        if not parts:
            return None
        for last in dict.fromkeys((parts[-1], UPLOAD.sub("", parts[-1]))):
            found = self._best([*parts[:-1], last], near)
            if found is not None:
                return found
        return None

    def _best(self, parts: list[str], near: Path | None) -> Path | None:
        candidates = self._by_name.get(parts[-1].casefold(), [])

        def fit(file: Path) -> tuple[int, int]:
            own = file.relative_to(self.root).parts
            same = 0
            while same < min(len(own), len(parts)) and own[-1 - same].casefold() == parts[-1 - same].casefold():
                same += 1
            return same, _shared(file.parent, near)

        ranked = sorted(candidates, key=fit, reverse=True)
        if len(ranked) > 1 and fit(ranked[0]) == fit(ranked[1]):
            return None
        return ranked[0] if ranked else None

    def below(self, folder: Path) -> list[Path]:
        """The images in a folder and the folders inside it, by name."""
        return sorted(file for files in self._by_name.values() for file in files if file.is_relative_to(folder))

    def key(self, file: Path) -> str:
        """An image's name relative to the source."""
        return file.relative_to(self.root).as_posix()


def _plain(name: str) -> str:
    """A name without the marks of Windows, of addresses, and of percent codes."""
    name = re.sub(r"^[a-z]+://[^/]*", "", name.replace("\\", "/"))
    return unquote(name).split("?d=")[-1]  # `/data/local-files/?d=folder/x.jpg` of Label Studio


def _shared(folder: Path, near: Path | None) -> int:
    """How many parts two folders have in common."""
    if near is None:
        return 0
    count = 0
    for one, other in zip(folder.parts, near.parts, strict=False):
        if one != other:
            break
        count += 1
    return count


@dataclass(frozen=True)
class Frame:
    """Size of an image as it is `stored` and as a viewer shows it, and the EXIF orientation 1 … 8 between them."""

    stored: Size
    viewed: Size
    orientation: int


def frame_of(image_file: Path) -> Frame:
    """Read an image as training will, and tell its sizes.

    Raises:
        ValueError: it cannot be read.
    """
    height, width = open_image(image_file).shape[:2]
    with Image.open(image_file) as image:
        orientation = image.getexif().get(ORIENTATION, 1)
        stored = image.size[::-1]
    return Frame((stored[0], stored[1]), (height, width), orientation if orientation in range(1, 9) else 1)


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """A map (H, W) over a stored image as a map over the image that a viewer shows."""
    if orientation >= 5:
        values = values.T
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return np.ascontiguousarray(values[rows, columns])

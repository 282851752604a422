"""The content of a panoptic JSON as flat arrays in a cache file that every process maps into memory.

Parsing COCO's JSON takes many seconds and gigabytes; mapping the arrays takes neither, and workers share the memory.
A cache belongs to one state of its JSON: size, time of change, and a digest of its beginning and end.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from kmax.categories import Listed
from kmax.categories.checks import read_json, without_collector
from kmax.data.panoptic_json import Content, check_panoptic
from kmax.files import write_atomically

FORMAT = 2
ENDS = 1 << 16
ALIGNMENT = 64
ANY_WRITE = 0o222


@dataclass(frozen=True)
class Index:
    """Image i has the segments `offset[i]` … `offset[i + 1]` of the `segment_*` arrays; `file_offset` cuts the names
    out of `file_bytes`, alternately an image name and an annotation name. Categories are the file's own ids; its
    list of categories is in `category_bytes`, as JSON. Ids of images are integers, or texts where one of them is no
    integer; `id_is_number` tells which of the texts are numbers in the file."""

    image_id: np.ndarray
    offset: np.ndarray
    segment_id: np.ndarray
    segment_category: np.ndarray
    segment_crowd: np.ndarray
    file_bytes: np.ndarray
    file_offset: np.ndarray
    category_bytes: np.ndarray
    id_is_number: np.ndarray

    def __len__(self) -> int:
        return len(self.image_id)

    def __reduce__(self) -> tuple[object, ...]:
        """Another process maps the cache file itself instead of receiving a copy."""
        origin = getattr(self, "_origin", None)
        return (_reopen, origin) if origin else (Index, tuple(getattr(self, field.name) for field in fields(Index)))

    def ids(self, chosen: Sequence[int]) -> list[int | str]:
        """The ids of some images as the file has them."""
        pairs = zip(self.image_id[chosen].tolist(), self.id_is_number[chosen].tolist(), strict=True)
        return [int(value) if number else value for value, number in pairs]

    def names(self, index: int) -> tuple[str, str]:
        """File names of an image and of its PNG."""
        cuts = self.file_offset[2 * index : 2 * index + 3]
        image, annotation = (self.file_bytes[a:b].tobytes().decode() for a, b in pairwise(cuts.tolist()))
        return image, annotation

    def segments(self, index: int) -> list[tuple[int, int, bool]]:
        """(id, category id, crowd) of every segment of an image."""
        part = slice(self.offset[index], self.offset[index + 1])
        columns = (self.segment_id[part], self.segment_category[part], self.segment_crowd[part])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    @property
    def categories(self) -> list[Listed]:
        """The categories that the file lists; none if it lists none."""
        return [Listed(*entry) for entry in json.loads(self.category_bytes.tobytes())]

    def annotation_with(self, category: int) -> str:
        """The first PNG with a segment of a category."""
        position = int(np.argmax(self.segment_category == category))
        return self.names(int(np.searchsorted(self.offset, position, side="right")) - 1)[1]


def load_index(path: Path) -> Index:
    """The index of a panoptic JSON, from its cache if there is a valid one; otherwise the cache is written, next to
    the JSON or, where that folder is read-only, in the user's cache folder.

    Raises:
        FileNotFoundError: there is no such JSON.
        ValueError: the JSON is damaged or contradicts itself.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: set the dataset's folder to the one described in data/README.md.")
    key = _fingerprint(path)
    paths = cache_files(path)
    for cache in paths:
        cached = _read_cache(cache, key)
        if cached is not None:
            return cached
    with without_collector():
        index = build_index(read_json(path), path)
    for cache in paths:
        if cache.parent == path.parent and not path.parent.stat().st_mode & ANY_WRITE:
            continue  # meant to be read-only, even if this user could write there
        try:
            _write_cache(cache, key, index)
        except (OSError, ValueError):  # read-only or full: try the next folder, or work without a cache
            continue
        return _read_cache(cache, key) or index
    return index


def cache_files(path: Path) -> tuple[Path, ...]:
    """Where the cache of a JSON may be, by preference; only next to it if the user has no home, as in containers."""
    beside = path.with_name(f".{path.name}.index")
    home = os.path.expanduser("~")
    folder = os.environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if home != "~" else "")
    if not folder:
        return (beside,)
    name = hashlib.blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()
    return beside, Path(folder) / "kmax" / f"{path.stem}-{name}.index"


def _fingerprint(path: Path) -> str:
    state = path.stat()
    digest = hashlib.blake2b(f"{FORMAT} {state.st_size} {state.st_mtime_ns}".encode(), digest_size=16)
    with path.open("rb") as file:
        digest.update(file.read(ENDS))
        file.seek(max(0, state.st_size - ENDS))
        digest.update(file.read(ENDS))
    return digest.hexdigest()


def _write_cache(cache: Path, key: str, index: Index) -> None:
    """Write a line of JSON with the offset of each array, then the arrays."""
    arrays = {field.name: np.ascontiguousarray(getattr(index, field.name)) for field in fields(Index)}
    layout, position = {}, 0
    for name, array in arrays.items():
        layout[name] = (array.dtype.str, len(array), position)
        position += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    header = json.dumps({"key": key, "bytes": position, "arrays": layout}).encode() + b"\n"
    header = b" " * (-len(header) % ALIGNMENT) + header
    with write_atomically(cache) as temporary, temporary.open("wb") as file:
        file.write(header)
        for array in arrays.values():
            file.write(array.tobytes())
            file.write(bytes(-array.nbytes % ALIGNMENT))


def _read_cache(cache: Path, key: str) -> Index | None:
    """The arrays of a cache file, mapped; None if the file is missing, damaged or made from another JSON."""
    try:
        with cache.open("rb") as file:
            line = file.readline(1 << 14)
        header = json.loads(line)
        if header["key"] != key or cache.stat().st_size != len(line) + header["bytes"]:
            return None
        content = np.memmap(cache, np.uint8, "r", offset=len(line)) if header["bytes"] else np.zeros(0, np.uint8)
        arrays = {}
        for name, (dtype, length, start) in header["arrays"].items():
            size = length * np.dtype(dtype).itemsize
            arrays[name] = content[start : start + size].view(dtype)
        index = Index(**arrays)
        object.__setattr__(index, "_origin", (cache, key))
        return index
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _reopen(cache: Path, key: str) -> Index:
    index = _read_cache(cache, key)
    if index is None:
        raise ValueError(f"{cache} has changed while workers started: start again.")
    return index


def build_index(whole: object, path: Path) -> Index:
    """The images of a JSON that have an annotation, in the order of `annotations`.

    Raises:
        ValueError: another format; an entry that is wrong; an image or a segment that occurs twice; an annotation
            without an image. The message names it.
    """
    content = check_panoptic(whole, path)
    images = dict(zip(content.image_id, content.image_name, strict=True))
    if len(images) < len(content.image_id):
        raise ValueError(f"{path} lists an image twice: get the file again.")
    _check_owners(content, images, path)
    ends = np.cumsum([0, *map(len, content.segments)])
    _check_ids(content, ends, path)
    names = [images[image_id] for image_id in content.owner]
    encoded = [name.encode() for name in chain.from_iterable(zip(names, content.png_name, strict=True))]
    return Index(
        image_id=np.array(content.owner),
        offset=ends,
        segment_id=np.array(content.segment_id, np.int32),
        segment_category=np.array(content.category_id, np.int32),
        segment_crowd=np.array(content.crowd, bool),
        file_bytes=np.frombuffer(b"".join(encoded), np.uint8),
        file_offset=np.cumsum([0, *map(len, encoded)]),
        category_bytes=np.frombuffer(json.dumps(content.categories).encode(), np.uint8),
        id_is_number=np.array([isinstance(image_id, int) for image_id in content.owner], bool),
    )


def _check_owners(content: Content, images: dict[int | str, str], path: Path) -> None:
    """Every annotation belongs to an image, and no two to the same."""
    seen: set[int | str] = set()
    for image_id, name in zip(content.owner, content.png_name, strict=True):
        if image_id not in images:
            other = int if isinstance(image_id, str) else str
            hint = ", whose ids are of another type" if any(isinstance(i, other) for i in content.image_id[:1]) else ""
            raise ValueError(
                f"{path}: annotation {name} belongs to no image of the file{hint} (image_id {image_id!r})."
            )
        if image_id in seen:
            raise ValueError(f"{path}: image {image_id} has two annotations: get the file again.")
        seen.add(image_id)


def _check_ids(content: Content, ends: np.ndarray, path: Path) -> None:
    """No two segments of an image share an id."""
    image = np.repeat(np.arange(len(content.segments)), np.diff(ends))
    keys = (image.astype(np.int64) << 24) + np.array(content.segment_id, np.int64)
    unique, first = np.unique(keys, return_index=True)
    if len(unique) < len(keys):
        twice = int(np.setdiff1d(np.arange(len(keys)), first)[0])
        raise ValueError(
            f"{path}: the segments of {content.png_name[image[twice]]} need distinct ids, but "
            f"{content.segment_id[twice]} occurs twice."
        )

"""What a panoptic JSON says, as flat arrays in a cache file that every process maps into memory.

Parsing COCO's JSON takes many seconds and gigabytes; mapping the arrays takes neither, and workers share the pages.
A cache belongs to one state of its JSON: size, time of change, and a digest of its beginning and end.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, fields
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from kmax.data.convert.kinds import COCO_PANOPTIC, kind_of
from kmax.files import Json, write_atomically

FORMAT = 1
ENDS = 1 << 16
ALIGNMENT = 64
ANY_WRITE = 0o222
LARGEST_ID = (1 << 24) - 1  # three bytes of a PNG


@dataclass(frozen=True)
class Index:
    """Image i has the segments `offset[i]` … `offset[i + 1]` of the `segment_*` arrays; `file_offset` cuts the names
    out of `file_bytes`, image name and annotation name in turn. Categories are the dataset's own ids."""

    image_id: np.ndarray
    offset: np.ndarray
    segment_id: np.ndarray
    segment_category: np.ndarray
    segment_crowd: np.ndarray
    file_bytes: np.ndarray
    file_offset: np.ndarray

    def __len__(self) -> int:
        return len(self.image_id)

    def __reduce__(self) -> tuple[object, ...]:
        """Another process maps the cache file anew instead of receiving a copy."""
        origin = getattr(self, "_origin", None)
        return (_reopen, origin) if origin else (Index, tuple(getattr(self, field.name) for field in fields(Index)))

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
        raise FileNotFoundError(f"{path} is missing: set dataset.root to the folder described in data/README.md.")
    key = _fingerprint(path)
    paths = cache_files(path)
    for cache in paths:
        cached = _read_cache(cache, key)
        if cached is not None:
            return cached
    index = build_index(_read_json(path), path)
    for cache in paths:
        if cache.parent == path.parent and not path.parent.stat().st_mode & ANY_WRITE:
            continue  # meant to be read-only, even if this user could write all the same
        try:
            _write_cache(cache, key, index)
        except (OSError, ValueError):  # read-only or full: the next place, or no cache at all
            continue
        return _read_cache(cache, key) or index
    return index


def cache_files(path: Path) -> tuple[Path, ...]:
    """Where the cache of a JSON may lie, by preference; beside it only where the user has no home, as in containers."""
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
    """A line of JSON that says where each array begins, then the arrays."""
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
    """The arrays of a cache file, mapped; None if there is no such file, or it is of another JSON, or damaged."""
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


def _read_json(path: Path) -> Json:
    try:
        content: Json = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): download it again.") from error
    lacking = [key for key in ("images", "annotations") if not isinstance(content, dict) or key not in content]
    kind = kind_of(content)
    if lacking or (content["annotations"] != [] and kind != COCO_PANOPTIC and "categories" in content):
        raise ValueError(f"{path} is not panoptic but {kind}: convert it with scripts/prepare_own.py.")
    return content


def build_index(content: Json, path: Path) -> Index:
    """The images of a JSON that have an annotation, in the order of `annotations`.

    Raises:
        ValueError: an image or a segment occurs twice, a segment has id 0, or an annotation has no image.
    """
    images = {image["id"]: image["file_name"] for image in content["images"]}
    annotations = content["annotations"]
    seen: set[object] = set()
    for annotation in annotations:
        name, image_id = annotation["file_name"], annotation["image_id"]
        if image_id not in images:
            raise ValueError(f"{path}: annotation {name} belongs to no image of the file.")
        if image_id in seen:
            raise ValueError(f"{path}: image {image_id} has two annotations: get the file again.")
        seen.add(image_id)
        ids = [segment["id"] for segment in annotation["segments_info"]]
        if len(set(ids)) < len(ids) or min(ids, default=1) <= 0 or max(ids, default=1) > LARGEST_ID:
            raise ValueError(
                f"{path}: the segments of {name} need distinct ids in 1 … {LARGEST_ID}, since 0 is unlabelled."
            )
    if len(images) < len(content["images"]):
        raise ValueError(f"{path} lists an image twice: get the file again.")
    segments = [segment for annotation in annotations for segment in annotation["segments_info"]]
    names = list(chain.from_iterable((images[a["image_id"]].encode(), a["file_name"].encode()) for a in annotations))
    return Index(
        image_id=np.array([annotation["image_id"] for annotation in annotations]),
        offset=np.cumsum([0, *(len(annotation["segments_info"]) for annotation in annotations)]),
        segment_id=np.array([segment["id"] for segment in segments], np.int32),
        segment_category=np.array([segment["category_id"] for segment in segments], np.int32),
        segment_crowd=np.array([bool(segment.get("iscrowd", 0)) for segment in segments], bool),
        file_bytes=np.frombuffer(b"".join(names), np.uint8),
        file_offset=np.cumsum([0, *map(len, names)]),
    )

"""Where images to predict come from: files, folders, globs, lists, videos, cameras.

Whatever the source, what comes out is a stream of `Frame`s; a file is opened only when its frame is loaded.
"""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kmax.images import IMAGE_SUFFIXES, UnreadableImageError, open_image
from kmax.videos import import_av

VIDEO_SUFFIXES = frozenset((".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"))
WEBCAM = "webcam"
_CAMERAS = {"linux": ("v4l2", "/dev/video0"), "darwin": ("avfoundation", "0"), "win32": ("dshow", "video=Camera")}

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Source:
    """A file or camera: `key` is unique and fit for a file name, `name` is what messages and results call it."""

    key: str
    name: str
    path: str
    kind: str  # image, video or webcam


@dataclass(frozen=True)
class Frame:
    """One image to come: `load()` returns it (H, W, 3) uint8 RGB or raises `UnreadableImageError`."""

    key: str
    name: str
    load: Callable[[], np.ndarray]


def find_sources(what: str | Sequence[str]) -> list[Source]:
    """The files and cameras that a user's input names.

    Args:
        what: an image, a video, a folder (searched to the bottom), a glob (`**` included), a `.txt` list with one path
            a line (relative to the list's folder), `webcam`, `webcam:DEVICE` or `webcam:FORMAT:DEVICE` (a format of
            FFmpeg), or several of these.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a file of a type that is neither image nor video.
    """
    entries = [what] if isinstance(what, str) else list(what)
    cameras = [e for e in entries if _is_camera(e)]
    paths = [path for e in entries if not _is_camera(e) for path in _expand(str(e))]
    paths = list(dict.fromkeys(paths))
    folders = [e for e in entries if Path(e).is_dir()]
    if not paths and not cameras:
        raise FileNotFoundError("input names no file: give an image, video, folder, glob, .txt list or webcam.")
    files = [
        Source(key, name, str(path), "video" if path.suffix.lower() in VIDEO_SUFFIXES else "image")
        for path, (key, name) in zip(paths, _names(paths, folders), strict=True)
    ]
    return files + [Source(f"{WEBCAM}{i or ''}", camera, camera, WEBCAM) for i, camera in enumerate(cameras)]


def _is_camera(entry: str) -> bool:
    return entry == WEBCAM or str(entry).startswith(f"{WEBCAM}:")


def _expand(entry: str) -> list[Path]:
    """The files that one entry of the input stands for, in a fixed order."""
    path = Path(entry).expanduser()
    if path.is_dir():
        found = sorted(f for f in path.rglob("*") if _known(f) and f.is_file())
        if not found:
            raise FileNotFoundError(f"The folder {entry} holds no image and no video.")
        return found
    if path.is_file():
        if path.suffix.lower() == ".txt":
            return _listed(path)
        if not _known(path):
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
            raise ValueError(f"{entry} is neither an image nor a video by its suffix: known are {suffixes}, .txt.")
        return [path]
    found = sorted(f for f in map(Path, glob.glob(str(path), recursive=True)) if _known(f) and f.is_file())
    if not found:
        kind = "No image or video matches" if glob.has_magic(entry) else "There is no file or folder"
        raise FileNotFoundError(f"{kind} {entry}.")
    return found


def _known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _listed(path: Path) -> list[Path]:
    """The paths of a list. Those that don't exist are reported when their turn comes, like damaged files."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no list of paths: it is not text ({error.reason}).") from error
    if not any(lines):
        raise FileNotFoundError(f"The list {path} is empty: write one path a line.")
    return [path.parent / Path(line).expanduser() for line in lines if line]


def _names(paths: Sequence[Path], folders: Sequence[str]) -> list[tuple[str, str]]:
    """(key, name) of each path: its part below the folder that all share, without suffix where that is unique.

    `folders` count as shared even if all files lie deeper, so that files added later change no name.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    if not absolute:
        return []
    parents = [path.parent for path in absolute] + [Path(os.path.abspath(folder)) for folder in folders]
    try:
        names = [path.relative_to(os.path.commonpath(parents)) for path in absolute]
    except ValueError:  # different drives
        names = [path.relative_to(path.anchor) for path in absolute]
    keys = [name.with_suffix("").as_posix() for name in names]
    count = Counter(keys)
    return [
        (key if count[key] == 1 else name.as_posix(), name.as_posix()) for key, name in zip(keys, names, strict=True)
    ]


def frames(sources: Iterable[Source], done: Container[str] = ()) -> Iterator[Frame]:
    """The frames of all sources in order, without those whose keys are `done`.

    An image has its source's key; frames of videos and cameras have `KEY/000000` and so on, and a camera goes on
    counting where it stopped. A source that cannot be read, or breaks off, yields one frame that fails to load.
    """
    for source in sources:
        if source.kind == "image":
            if source.key not in done:
                yield Frame(source.key, source.name, lambda path=source.path: open_image(path))  # type: ignore[misc]
            continue
        try:
            yield from _video_frames(source, done)
        except UnreadableImageError as error:
            yield _failing(source, error)


def _failing(source: Source, error: UnreadableImageError) -> Frame:
    def load() -> np.ndarray:
        raise error

    return Frame(source.key, source.name, load)


def _video_frames(source: Source, done: Container[str]) -> Iterator[Frame]:
    """The frames of a video or camera, decoded one after the other."""
    av = import_av()
    number = 0
    try:
        with _open(av, source) as container:
            if not container.streams.video:
                raise UnreadableImageError(f"{source.name} has no video in it.")
            for frame in container.decode(video=0):
                while source.kind == WEBCAM and f"{source.key}/{number:06d}" in done:
                    number += 1
                key = f"{source.key}/{number:06d}"
                if key not in done:
                    image = frame.to_ndarray(format="rgb24")
                    yield Frame(key, f"{source.name}#{number}", lambda image=image: image)  # type: ignore[misc]
                number += 1
    except (av.FFmpegError, OSError) as error:
        raise UnreadableImageError(f"{source.name} cannot be read after {number} frames: {error}.") from error
    if not number:
        raise UnreadableImageError(f"{source.name} holds no frame.")


def _open(av: Any, source: Source) -> Any:
    if source.kind != WEBCAM:
        return av.open(source.path)
    kind, device = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
    *format_given, device_given = source.path.split(":", 2)[1:] or [device]
    return av.open(device_given or device, format=format_given[0] if format_given else kind)


def count_frames(sources: Sequence[Source]) -> int | None:
    """How many frames the sources say they hold; None where that is not known (cameras, some videos)."""
    total = 0
    for source in sources:
        length = 1 if source.kind == "image" else _video_length(source)
        if length is None:
            return None
        total += length
    return total


def _video_length(source: Source) -> int | None:
    av = import_av()
    if source.kind == WEBCAM:
        return None
    try:
        with av.open(source.path) as container:
            return container.streams.video[0].frames or None
    except (av.FFmpegError, OSError, IndexError):
        return 1  # the failing frame


def ordered_map(function: Callable[[_T], _R], items: Iterable[_T], workers: int) -> Iterator[_R]:
    """`map` in threads, in order, that runs at most `workers` + 1 items ahead: memory stays small.

    With 0 workers it is `map`. When the consumer stops early, running calls are waited for and the rest is dropped.
    """
    if not workers:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

"""Where images to predict come from: files, folders, globs, lists, videos, cameras.

All sources yield a stream of `Frame`s; a file is opened only when its frame is loaded.
"""

from __future__ import annotations

import codecs
import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from kmax.files import walk_files
from kmax.images import IMAGE_SUFFIXES, UnreadableImageError, open_image
from kmax.names import natural_order, unique_names
from kmax.results.folder import RESULT_FILES
from kmax.videos import VIDEO_SUFFIXES, import_av, shown_frames

WEBCAM = "webcam"
_CAMERAS = {"linux": ("v4l2", "/dev/video0"), "darwin": ("avfoundation", "0"), "win32": ("dshow", "video=Camera")}


@dataclass(frozen=True)
class Source:
    """A file or camera: `key` is unique and valid as a file name, or empty for the video that is the whole input;
    `name` is used in messages and results; `state` changes with the file's content (size and time of change), and is
    empty for cameras and missing files."""

    key: str
    name: str
    path: str
    kind: str  # image, video or webcam
    state: str = ""


@dataclass(frozen=True)
class Frame:
    """One image to come: `load()` returns it (H, W, 3) uint8 RGB or raises `UnreadableImageError`.

    `time` and `duration` in seconds are those of a video's frame, if the video has them.
    """

    key: str
    name: str
    load: Callable[[], np.ndarray]
    source: Source | None = None
    time: float | None = None
    duration: float | None = None


@dataclass(frozen=True)
class Survey:
    """The content of an input: its sources, and how many files were skipped, by kind."""

    sources: list[Source]
    passed: Counter[str]


def find_sources(what: object) -> list[Source]:
    """The files and cameras that a user's input names: `survey` without the skipped files."""
    return survey(what).sources


def survey(what: object, output: Path | None = None, known: Mapping[str, str] | None = None) -> Survey:
    """The files and cameras that a user's input names.

    Args:
        what: an image, a video, a folder (searched to the bottom, linked folders too), a glob (`**` included), a `.txt`
            list with one path a line (relative to the list's folder), `webcam`, `webcam:DEVICE` or
            `webcam:FORMAT:DEVICE` (a format of FFmpeg), or several of these.
        output: a folder of results, which is never part of the input; nor are other folders of results.
        known: keys by name that an earlier run has given.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a file of a type that is neither image nor video.
    """
    entries = [str(e) for e in what] if isinstance(what, (list, tuple)) else [str(what)]
    cameras = list(dict.fromkeys(e for e in entries if _is_camera(e)))
    passed: Counter[str] = Counter()
    paths = [path for e in entries if not _is_camera(e) for path in _expand(e, output, passed)]
    once: dict[str, Path] = {}
    for path in paths:
        once.setdefault(os.path.abspath(path), path)
    paths = list(once.values())
    folders = [e for e in entries if Path(e).expanduser().is_dir()]
    if not paths and not cameras:
        raise FileNotFoundError("input names no file: give an image, video, folder, glob, .txt list or webcam.")
    names, kinds = _names(paths, folders), ["video" if _is_video(path) else "image" for path in paths]
    keys = unique_names(names, folders=[kind == "video" for kind in kinds], known=known)
    if len(entries) == 1 and kinds == ["video"] and paths == [Path(entries[0]).expanduser()]:
        keys = [""]  # the folder of the results is named after it
    files = [
        Source(key, _printable(name), str(path), kind, _state(path))
        for key, name, path, kind in zip(keys, names, paths, kinds, strict=True)
    ]
    webcams = [Source(f"{WEBCAM}{i or ''}", camera, camera, WEBCAM) for i, camera in enumerate(cameras)]
    return Survey(files + webcams, passed)


def _state(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size} bytes, {found.st_mtime_ns}"


def _printable(name: str) -> str:
    """A printable form of a file name that is not valid text."""
    return name.encode("utf-8", "backslashreplace").decode()


def _is_camera(entry: str) -> bool:
    return entry == WEBCAM or str(entry).startswith(f"{WEBCAM}:")


def _expand(entry: str, output: Path | None, passed: Counter[str]) -> list[Path]:
    """The files that one entry of the input stands for, in a fixed order; skipped files are counted in `passed`."""
    path = Path(entry).expanduser()

    def holds_results(folder: Path) -> bool:
        return _same(folder, output) or all((folder / name).is_file() for name in RESULT_FILES)

    if path.is_dir():
        files, others = walk_files(path, holds_results)
        found = sorted((file for file in files if _known(file)), key=natural_order)
        passed.update(_kind(file) for file in {*files, *others} - set(found))
        if not found:
            raise FileNotFoundError(f"The folder {entry} holds no image and no video{_counted(passed)}.")
        return found
    if path.is_file():
        if path.suffix.lower() == ".txt":
            return _listed(path)
        if not _known(path):
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
            raise ValueError(f"{entry} is neither an image nor a video by its suffix: known are {suffixes}, .txt.")
        return [path]
    if not glob.has_magic(entry):
        hint = f"; a name of digits goes in two pairs of quotes: input='\"{entry}\"'" if entry.isdecimal() else ""
        raise FileNotFoundError(f"There is no file or folder {entry}{hint}.")
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    matching = map(Path, glob.glob(str(path), recursive=True))
    files = sorted((file for file in matching if file.is_file()), key=natural_order)
    below = [file for file in files if not any(map(holds_results, _between(file, fixed)))]
    found = [file for file in below if _known(file) and not file.name.startswith(".")]
    passed.update(_kind(file) for file in set(files) - set(found))
    if not found:
        raise FileNotFoundError(f"No image or video matches {entry}{_counted(passed)}.")
    return found


def _same(folder: Path, other: Path | None) -> bool:
    return other is not None and os.path.realpath(folder) == os.path.realpath(other)


def _between(file: Path, above: Path) -> list[Path]:
    """The folders that a file lies in, below the folder `above`."""
    return [parent for parent in file.parents if parent != above and above in parent.parents]


def _kind(path: Path) -> str:
    """The kind of a skipped file, for messages."""
    if path.is_dir():
        return "folders of results, hidden or linked in a circle"
    return "hidden files" if path.name.startswith(".") else f"{path.suffix.lower() or 'files without suffix'}"


def _counted(passed: Counter[str]) -> str:
    """The skipped files, in brackets; empty if there are none."""
    return f" (passed over: {', '.join(f'{n} {kind}' for kind, n in passed.most_common())})" if passed else ""


def _known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _listed(path: Path) -> list[Path]:
    """The paths of a list, in any of the encodings of common editors. Missing files are reported when they
    are loaded, like damaged ones."""
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no list of paths: it is not text in UTF-8 ({error.reason}).") from error
    if text.strip() and "." not in text:  # every file that is read has a suffix
        raise ValueError(f"{path} is no list of paths: it is not text, or names no file with a suffix.")
    lines = [line.strip().strip("\"'") for line in text.splitlines()]
    if not any(lines):
        raise FileNotFoundError(f"The list {path} is empty: write one path a line.")
    return [path.parent / Path(line).expanduser() for line in lines if line]


def _names(paths: Sequence[Path], folders: Sequence[str]) -> list[str]:
    """The part of each path below the folder that all share.

    `folders` count as shared even if all files lie deeper, so that files added later change no name.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    if not absolute:
        return []
    parents = [path.parent for path in absolute] + [Path(os.path.abspath(Path(f).expanduser())) for f in folders]
    try:
        return [path.relative_to(os.path.commonpath(parents)).as_posix() for path in absolute]
    except ValueError:  # different drives
        return [path.relative_to(path.anchor).as_posix() for path in absolute]


def frames(sources: Iterable[Source], done: Container[str] = ()) -> Iterator[Frame]:
    """The frames of all sources in order, without those whose keys are `done`.

    An image has its source's key; frames of videos and cameras have `KEY/000000` and so on, and a camera
    continues its numbers. A source that cannot be read, or breaks off, yields one frame that fails to load.
    """
    for source in sources:
        if source.kind == "image":
            if source.key not in done:
                yield Frame(source.key, source.name, partial(open_image, source.path), source)
            continue
        try:
            yield from _video_frames(source, done)
        except UnreadableImageError as error:
            yield _failing(source, error)


def _failing(source: Source, error: UnreadableImageError) -> Frame:
    def load() -> np.ndarray:
        raise error

    return Frame(source.key, source.name, load, source)


def _video_frames(source: Source, done: Container[str]) -> Iterator[Frame]:
    """The frames of a video or camera as a player shows them, decoded one by one."""
    av = import_av()
    number = 0
    try:
        with _open(av, source) as container:
            if not container.streams.video:
                raise UnreadableImageError(f"{source.name} has no video in it.")
            for shown in shown_frames(container):
                while source.kind == WEBCAM and f"{source.key}/{number:06d}" in done:
                    number += 1
                key = f"{source.key}/{number:06d}".lstrip("/")
                if key not in done:
                    load = partial(np.asarray, shown.image)
                    yield Frame(key, f"{source.name}#{number}", load, source, shown.time, shown.duration)
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
    """The number of frames that the sources declare; None if it is unknown (cameras, some videos)."""
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

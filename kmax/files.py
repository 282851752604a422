"""Files that are either complete or not there."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TextIO

Json = dict[str, Any]
"""An object of a JSON file, or one that becomes JSON."""
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block succeeds, and is removed otherwise.

    It has the same suffix, which some writers depend on, and the permissions of any new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers make files that only their owner may read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Like `replacing`, with errors that name the remedy.

    Raises:
        ValueError: the disk is full, or the folder cannot be written to.
    """
    try:
        with replacing(path) as temporary:
            yield temporary
    except BaseException as error:
        raise explained(error, path) from error


def explained(error: BaseException, path: Path) -> BaseException:
    """A full disk or a missing permission as a `ValueError` with the remedy; other errors as they are."""
    code = error.errno if isinstance(error, OSError) else None
    if code in OUT_OF_SPACE:
        return ValueError(
            f"The disk is full ({path} could not be written): free some space and run the same command again; "
            "what is finished is kept."
        )
    if code in (errno.EACCES, errno.EROFS, errno.EPERM):
        return ValueError(f"{path.parent} cannot be written to: choose another --root.")
    return error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file with this content, complete or not at all."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, complete or not at all."""
    with write_atomically(path) as temporary, temporary.open("w") as file:
        json.dump(content, file)


def write_list(file: TextIO, entries: Iterable[Json]) -> None:
    """Write a JSON list into an open file, one entry at a time."""
    file.write("[")
    for number, entry in enumerate(entries):
        file.write(("," if number else "") + "\n" + json.dumps(entry))
    file.write("\n]")


def walk_files(folder: Path, skip: Callable[[Path], bool] = lambda path: False) -> tuple[list[Path], list[Path]]:
    """All files below a folder, sorted, those of linked folders too; and the files and folders that were skipped.

    Skipped are hidden files and folders (`.DS_Store`, `._x.jpg` and `__MACOSX` of other systems), links that lead
    back to a folder above or nowhere, special files (a pipe), and folders for which `skip` is true.
    """
    found: list[Path] = []
    passed: list[Path] = []
    above: dict[str, frozenset[str]] = {str(folder): frozenset((os.path.realpath(folder),))}
    for parent, folders, files in os.walk(folder, followlinks=True):
        ancestors = above.pop(parent)
        kept = []
        for name in sorted(folders):
            path = Path(parent, name)
            real = os.path.realpath(path)
            if name.startswith(".") or name == "__MACOSX" or real in ancestors or skip(path):
                passed.append(path)
            else:
                kept.append(name)
                above[str(path)] = ancestors | {real}
        folders[:] = kept
        for name in files:
            path = Path(parent, name)
            (found if path.is_file() and not name.startswith(".") else passed).append(path)
    return sorted(found), sorted(passed)


def claim_folder(parent: Path, name: str) -> Path:
    """A new folder `parent/name`, or `name-2`, `name-3` … if that is taken: nobody else gets the same one, not even a
    process on another node that asks in the same moment."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("numbers do not end")

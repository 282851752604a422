"""Files that are either complete or not there."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A temporary name to write to, renamed to `path` at the end; removed again if anything goes wrong.

    Raises:
        ValueError: the disk is full, or the folder cannot be written to.
    """
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".tmp{path.suffix}", dir=path.parent)
        os.close(handle)
        os.chmod(name, 0o666 & ~_umask())
        yield Path(name)
        os.replace(name, path)
    except BaseException as error:
        with suppress(OSError):
            if name:
                Path(name).unlink(missing_ok=True)
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


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_bytes(path: Path, content: bytes) -> None:
    """A file with this content, complete or not at all."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """A JSON file, complete or not at all."""
    with write_atomically(path) as temporary, temporary.open("w") as file:
        json.dump(content, file)

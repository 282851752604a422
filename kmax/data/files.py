"""Prepared files, complete or not there, and what keeps them from being written."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kmax.files import replacing

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """As `replacing`, for a preparation: errors name the remedy.

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
    """A file with this content, complete or not at all."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """A JSON file, complete or not at all."""
    with write_atomically(path) as temporary, temporary.open("w") as file:
        json.dump(content, file)

"""Where downloaded weights are kept, and the records about them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from kmax.checkpoint.resume import digest
from kmax.files import replacing

VARIABLE = "KMAX_CACHE"


def cache_dir() -> Path:
    """The folder of downloaded weights: `$KMAX_CACHE`, else `kmax` in the user's cache (`$XDG_CACHE_HOME` or
    ~/.cache), else, for users without a home, a folder of their own among the temporary files. Made if missing.

    Raises:
        ValueError: it cannot be made.
    """
    folder = _chosen() or _among_temporary_files()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The folder {folder} for downloaded weights cannot be made ({error.strerror}): set {VARIABLE} to another."
        ) from error
    return folder


def _chosen() -> Path | None:
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]).expanduser() / "kmax"
    try:
        home = Path.home()
    except RuntimeError:  # no $HOME, and a user that the system does not know, as in containers
        return None
    folder = home / ".cache" / "kmax"
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), home)
    return folder if home.is_dir() and os.access(nearest, os.W_OK) else None


def _among_temporary_files() -> Path:
    """A folder that belongs to this user alone: one that somebody else made is not trusted."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    folder = Path(tempfile.gettempdir()) / f"kmax-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder if folder.stat().st_uid == user else Path(tempfile.mkdtemp(prefix="kmax-"))


@dataclass(frozen=True)
class Print:
    """A fingerprint of a file's content: its size in bytes and its SHA-256."""

    size: int
    sha256: str


def fingerprint(path: Path) -> Print:
    """The fingerprint of a file."""
    return Print(path.stat().st_size, digest(path, "sha256"))


@dataclass(frozen=True)
class Record:
    """The record of a download: the address, the published file, and the converted file.

    The published file is fingerprinted when it first arrives, since its authors publish no hash; a later download is
    compared with the first.
    """

    url: str
    published: Print
    converted: Print | None = None

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """The record in a file; None if it is missing or cannot be read."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            converted = content["converted"]
            return cls(content["url"], Print(**content["published"]), Print(**converted) if converted else None)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write the record, complete or not at all."""
        with replacing(path) as file:
            file.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock among the processes that share the cache; a process that waits says for what."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        print(f"waiting for another process that gets {what}", file=sys.stderr, flush=True)
        lock.acquire()
    except OSError as error:
        raise ValueError(
            f"{path.parent} cannot be written ({error.strerror}): set {VARIABLE} to a folder for downloaded weights."
        ) from error
    try:
        yield
    finally:
        lock.release()

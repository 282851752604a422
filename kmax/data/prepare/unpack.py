"""Copy files out of archives, each complete or not at all; what is there already is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kmax.data.prepare.pool import parallel
from kmax.data.storage import Archive, Folder
from kmax.files import write_bytes


@dataclass(frozen=True)
class _Copy:
    source: Folder
    folder: Path

    def __call__(self, name: str) -> None:
        write_bytes(self.folder / name, self.source.read(name))


def unpack(source: Folder, folder: Path, title: str, workers: int = 0) -> int:
    """Copy every file of an archive into `folder`; a plain directory needs nothing.

    Returns:
        How many files were copied.

    Raises:
        ValueError: the archive is damaged, or the disk is full.
    """
    if not isinstance(source, Archive):
        return 0
    todo = [name for name in source if not (folder / name).is_file()]
    for _ in parallel(_Copy(source, folder), todo, title, workers):
        pass
    return len(todo)

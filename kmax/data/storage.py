"""Folders of files that may be inside an archive: a plain directory, a .zip, or an uncompressed .tar.

An archive is read without unpacking. Its index is a few flat arrays, and every read gives its own position in the file,
so forked workers share both without copies and without disturbing each other.
"""

from __future__ import annotations

import errno
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from kmax.files import walk_files

ARCHIVES = (".zip", ".tar")
LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: lengths of name and extra field
NO_CHECKSUM = -1
NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


class Folder(Protocol):
    """Files by name, relative to the folder, with `/` between the parts."""

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is none of this name.
            ValueError: the archive is damaged there, or the file may not be read.
        """

    def where(self, name: str) -> str:
        """The name of the file in messages."""

    def __contains__(self, name: str) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...


class Directory:
    """A folder of the file system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            if error.errno in NO_SUCH_FILE:
                raise FileNotFoundError(
                    f"There is no file {self.where(name)}: check the dataset's folder and that every archive was "
                    "unpacked."
                ) from None
            raise ValueError(f"{self.where(name)} cannot be read ({error.strerror}): check it and its disk.") from error

    def where(self, name: str) -> str:
        return str(self.path / name)

    def __contains__(self, name: str) -> bool:
        return (self.path / name).is_file()

    def __iter__(self) -> Iterator[str]:
        return (file.relative_to(self.path).as_posix() for file in walk_files(self.path)[0])


class Archive:
    """The files of a .zip or an uncompressed .tar below the first of `prefixes` that exists.

    Raises:
        ValueError: the file is damaged, or a compressed tar, or has nothing below any of the prefixes.
    """

    def __init__(self, path: Path, prefixes: Sequence[str] = ("",)) -> None:
        everything = sorted((name.encode(), entry) for name, *entry in _members(path))
        for prefix in prefixes:
            self.path, self.inner = path, f"{prefix}/" if prefix else ""
            start = self.inner.encode()
            members = [member for member in everything if member[0].startswith(start)]
            if members:
                break
        else:
            raise ValueError(f"{path} has no folder {prefixes[0]}: it is another archive than expected.")
        names = [member[0][len(start) :] for member in members]
        self._cuts = np.cumsum([0, *map(len, names)])
        self._names = np.frombuffer(b"".join(names), np.uint8)
        self._place = np.array([member[1] for member in members], np.int64)  # offset, stored size, method, checksum
        self._file: int | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_file": None}

    def __len__(self) -> int:
        return len(self._place)

    def _name(self, position: int) -> bytes:
        return self._names[self._cuts[position] : self._cuts[position + 1]].tobytes()

    def _find(self, name: str) -> int | None:
        wanted, low, high = name.encode(), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._name(middle) < wanted else (low, middle)
        return low if low < len(self) and self._name(low) == wanted else None

    def read(self, name: str) -> bytes:
        position = self._find(name)
        if position is None:
            raise FileNotFoundError(f"There is no file {self.where(name)}: the archive is incomplete or another one.")
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        offset, size, method, checksum = (int(value) for value in self._place[position])
        if checksum != NO_CHECKSUM:
            header = os.pread(self._file, LOCAL_HEADER.size, offset)
            offset += LOCAL_HEADER.size + sum(LOCAL_HEADER.unpack(header)) if len(header) == LOCAL_HEADER.size else 0
        stored = os.pread(self._file, size, offset)
        try:
            content = zlib.decompress(stored, -zlib.MAX_WBITS) if method == zipfile.ZIP_DEFLATED else stored
        except zlib.error:
            stored = content = b""
        if len(stored) < size or checksum not in (NO_CHECKSUM, zlib.crc32(content)):
            raise ValueError(f"{self.where(name)} is damaged: download {self.path.name} again.")
        return content

    def where(self, name: str) -> str:
        return f"{self.path}/{self.inner}{name}"

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (self._name(position).decode() for position in range(len(self)))


def _members(path: Path) -> Iterator[tuple[str, int, int, int, int]]:
    """Name, offset, stored size, compression method and checksum of every file of an archive."""
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if not info.is_dir():
                        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                            raise ValueError(f"{path} uses a rare compression: unpack it and use the folder.")
                        yield info.filename, info.header_offset, info.compress_size, info.compress_type, info.CRC
        else:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    if member.isfile():
                        name = member.name.removeprefix("./")
                        yield name, member.offset_data, member.size, zipfile.ZIP_STORED, NO_CHECKSUM
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise ValueError(
            f"{path} is damaged or compressed otherwise ({error}): download it again, or unpack it and use the folder."
        ) from error


def find_folder(root: str | Path, inner: str, containers: Sequence[str] = ()) -> Folder:
    """The folder `inner` below `root`: as a directory, inside an unpacked container, or inside an archive.

    Args:
        containers: names of archives as they are published, e.g. `leftImg8bit_trainvaltest.zip`; an archive may have a
            top folder of its own name. `inner` plus .zip or .tar is always looked for.

    Raises:
        FileNotFoundError: it is in none of these; the message lists them.
    """
    root = Path(root)
    own = [inner + suffix for suffix in ARCHIVES]
    directories = [root / inner, *(root / Path(name).stem / inner for name in containers)]
    for directory in directories:
        if directory.is_dir():
            return Directory(directory)
    for name in own:
        if (root / name).is_file():
            return Archive(root / name, (inner.rpartition("/")[2], ""))
    for name in containers:
        if (root / name).is_file():
            return Archive(root / name, (inner, f"{Path(name).stem}/{inner}"))
    looked = ", ".join(str(path) for path in (directories[0], *(root / name for name in (*own[:1], *containers))))
    raise FileNotFoundError(
        f"{root / inner} is missing: set the dataset's folder to the one described in data/README.md (looked for "
        f"{looked})."
    )

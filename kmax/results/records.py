"""An append-only file of JSON lines: written records survive any end of the program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kmax.files import Json


class Records:
    """One JSON object per image, each with a `key`; if several records have the same key, the last one counts.

    Only keys and file offsets are held in memory. A line that was cut off, by a full disk or a killed program, is
    removed when the file is opened again.

    Raises:
        ValueError: a line that is complete but no record; another process is writing to the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[str, int] = {}
        self._failed: set[str] = set()
        path.touch()
        self._file = path.open("r+b")
        _lock(self._file, path)
        end = 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    self._note(json.loads(line), end)
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{path} is damaged at byte {end} ({error}): delete the folder and predict again."
                    ) from error
                end += len(line)
        self._file.truncate(end)
        self._file.seek(end)

    def _note(self, record: Json, offset: int) -> None:
        self._offsets[record["key"]] = offset
        (self._failed.add if record.get("error") else self._failed.discard)(record["key"])

    @property
    def done(self) -> set[str]:
        """The keys whose last record is not an error."""
        return self._offsets.keys() - self._failed

    def append(self, record: Json) -> None:
        """Add a record; when this returns, the operating system has it."""
        offset = self._file.tell()
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        self._note(record, offset)

    def __getitem__(self, key: str) -> Json:
        """The last record of a key."""
        with self.path.open("rb") as file:
            file.seek(self._offsets[key])
            found: Json = json.loads(file.readline())
            return found

    def __iter__(self) -> Iterator[Json]:
        """The successful records in the order of their keys, one at a time."""
        with self.path.open("rb") as file:
            for key in sorted(self.done):
                file.seek(self._offsets[key])
                yield json.loads(file.readline())

    def close(self) -> None:
        """Close the file; calling it again changes nothing."""
        self._file.close()


def _lock(file: IO[bytes], path: Path) -> None:
    """Lock the file against other processes until it is closed, if the file system supports locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"Another run is writing to {path.parent} at this moment: wait for it, or choose another output=…."
        ) from None
    except OSError:  # a file system without locks
        return

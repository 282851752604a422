"""The same work for many files: in parallel, with a progress bar, and resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kmax.files import Json, explained, write_atomically
from kmax.processes import end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK = 16


def parallel(
    function: Callable[[Item], Result], items: Sequence[Item], title: str, workers: int = 0
) -> Iterator[Result]:
    """`function` of every item, in their order, under a progress bar on standard error.

    `workers` processes share the work; 0 does it in this one. After an error, no further item is begun.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=len(items))
        for result in _results(function, items, workers):
            yield result
            progress.advance(task)


def _results(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    if not workers or len(items) <= CHUNK:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, initializer=_set_function, initargs=(function,)) as pool:
        futures = [pool.submit(_chunk, items[start : start + CHUNK]) for start in range(0, len(items), CHUNK)]
        try:
            for future in futures:
                yield from future.result()
        finally:
            for future in futures:
                future.cancel()


_function: Callable[..., object] | None = None  # of a worker: sent once, since it may hold the index of an archive


def _set_function(function: Callable[..., object]) -> None:
    global _function
    _function = function
    end_with_parent()


def _chunk(items: Sequence[object]) -> list[Any]:
    assert _function is not None, "the initializer comes first"
    return [_function(item) for item in items]


class Journal:
    """Results of an unfinished run, one JSON line each, so that the next run continues where this one stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: Json = {}
        if path.is_file():
            for line in path.read_text().splitlines():
                try:
                    key, result = json.loads(line)
                except ValueError:  # the line at which the last run was cut off
                    continue
                self.done[key] = result
            self._rewrite()

    def _rewrite(self) -> None:
        with write_atomically(self.path) as temporary:
            temporary.write_text("".join(f"{json.dumps([key, result])}\n" for key, result in self.done.items()))

    def add(self, key: str, result: object) -> None:
        """Remember one result."""
        self.done[key] = result
        try:
            with self.path.open("a") as file:
                file.write(f"{json.dumps([key, result])}\n")
        except OSError as error:
            raise explained(error, self.path) from error

    def close(self) -> None:
        """The run is complete: the journal is no longer needed."""
        self.path.unlink(missing_ok=True)

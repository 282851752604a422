"""The progress of a prediction: a bar on a terminal, otherwise a plain line from time to time; on standard error."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from types import TracebackType

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, Progress, TextColumn

from kmax.callbacks.pace import Pace
from kmax.console import Recorder, digits, drawn_over, duration, joined, plain


class ImageProgress:
    """Counts images: `predicting 12/300 · 4.2 images/s · 0:01:09 left`.

    Args:
        total: the number of images, None if it is unknown.
        seconds: between two plain lines, at least.
    """

    def __init__(self, total: int | None, seconds: float = 10.0) -> None:
        self.total, self.seconds, self.done = total, seconds, 0
        self._pace, self._said = Pace(), time.monotonic()
        stream = sys.stderr.stream if isinstance(sys.stderr, Recorder) else sys.stderr
        console = Console(file=stream) if stream is not None and stream.isatty() else None
        self._console = None if console is None or console.is_dumb_terminal else console
        self._screen = ExitStack()

    def __enter__(self) -> ImageProgress:
        if self._console is not None:
            columns = (TextColumn("predicting"), BarColumn(), TextColumn("{task.fields[line]}", markup=False))
            self._bars = Progress(
                *columns, console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._screen.enter_context(drawn_over(self._console, FileProxy))
            self._screen.enter_context(self._bars)
            self._task = self._bars.add_task("", total=self.total, line="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.close()

    def advance(self) -> None:
        """One more image is done."""
        self.done += 1
        self._pace.mark(self.done)
        if self._console is not None:
            self._bars.update(self._task, completed=self.done, line=self.line())
        elif time.monotonic() - self._said >= self.seconds:
            self._said = time.monotonic()
            self.say(f"predicting {self.line()}")

    def line(self) -> str:
        """The line, with the numbers that are known."""
        rate = self._pace.steps_per_second
        left = self._pace.seconds_left(self.total - self.done, 0) if self.total is not None else None
        return joined(
            str(self.done) if self.total is None else f"{self.done}/{self.total}",
            f"{digits(rate)} images/s" if rate else "",
            f"{duration(left)} left" if left is not None else "",
        )

    @staticmethod
    def say(text: str) -> None:
        """Print a line; characters of names have no special meaning in it."""
        print(plain(text), file=sys.stderr, flush=True)

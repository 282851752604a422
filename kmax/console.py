"""Printed output: plain lines that look the same in a terminal, a pipe and a log file."""

from __future__ import annotations

import io
import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]")
_LIBRARIES = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning")


def plain(text: object) -> str:
    """Foreign text as one line that a terminal shows and does not obey: escape codes and line ends become visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def digits(value: float | None) -> str:
    """A number with four significant digits, a missing one as a dash: 20.9531 → 20.95, 0.000123456 → 0.0001235."""
    if value is None:
        return "–"
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e16 else f"{value:.4g}"


def percent(value: float | None) -> str:
    """A quality in percent with two decimals, a missing one as a dash."""
    return "–" if value is None else f"{value:.2f}"


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds: 0:02:05; days where there are any; a dash for None."""
    if seconds is None:
        return "–"
    hours, rest = divmod(max(0, round(seconds)), 3600)
    days, hours = divmod(hours, 24)
    return f"{f'{days} d ' if days else ''}{hours}:{rest // 60:02}:{rest % 60:02}"


def joined(*parts: str) -> str:
    """The parts of a line that are not empty, with dots between them."""
    return " · ".join(part for part in parts if part)


def override(key: str, value: object) -> str:
    """`key=value` in Hydra's grammar, in quotes if the value has characters with a meaning there."""
    text = str(value)
    simple = re.fullmatch(r"[A-Za-z0-9_./+@%\\-]+", text) and "\\" not in text
    if simple:
        return f"{key}={text}"
    escaped = re.sub(r"(\\*)(')", lambda found: found[1] * 2 + "\\'", text)  # backslashes count before a quote only
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"{key}='{escaped}{chr(92) * trailing}'"


def command(script: str, *arguments: str) -> str:
    """A command line to be copied into a shell; `script` is a file of Python or a program of its own."""
    return shlex.join([*(["python"] if script.endswith(".py") else []), script, *arguments])


def command_to_go_on(folder: Path, arguments: Sequence[str]) -> str:
    """The command that continues the run in `folder`, made from the one that started it.

    Args:
        folder: of the run; of one job, in a sweep.
        arguments: of the program, its own name first (`sys.argv`).
    """
    sweep = any(argument in ("-m", "--multirun") for argument in arguments[1:])
    key, target = ("hydra.sweep.dir", folder.parent) if sweep else ("hydra.run.dir", folder)
    dropped = (f"{key}=", "resume=")  # the run continues from the newest checkpoint of the folder
    kept = [argument for argument in arguments[1:] if not argument.startswith(dropped)]
    return command(arguments[0], *kept, override(key, target))


class Recorder(io.TextIOBase):
    """A stream that also writes whole lines to a log file, without escape codes.

    Where the stream is gone (a closed pipe, a lost terminal) or cannot show a character, the program continues.

    Args:
        stream: where the text goes; None where the program has no such stream. A progress bar may
            replace it temporarily.
        log: an open text file, or None.
    """

    def __init__(self, stream: TextIO | None, log: TextIO | None) -> None:
        self.stream, self._log, self._line = stream, log, ""

    def write(self, text: str) -> int:
        self._pass_on(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._record(line)
        return len(text)

    def flush(self) -> None:
        try:
            if self.stream is not None:
                self.stream.flush()
        except (OSError, ValueError):
            self.stream = None

    def isatty(self) -> bool:
        return self.stream is not None and self.stream.isatty()

    def fileno(self) -> int:
        if self.stream is None:
            raise io.UnsupportedOperation("fileno")
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.stream, "encoding", None) or "utf-8"

    def finish(self) -> None:
        """Write a last, incomplete line."""
        if self._line:
            self._record(self._line)
            self._line = ""

    def _pass_on(self, text: str) -> None:
        if self.stream is None:
            return
        try:
            try:
                self.stream.write(text)
            except UnicodeEncodeError:
                self.stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
        except (OSError, ValueError):  # the reader is gone
            self.stream = None

    def _record(self, line: str) -> None:
        if self._log is None:
            return
        shown = _ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2])  # the text that remains visible on a terminal
        try:
            self._log.write(f"{shown}\n")
            self._log.flush()
        except (OSError, ValueError):  # a full disk must not end a training because of a log
            self._log = None


@contextmanager
def recording(path: Path | None) -> Iterator[None]:
    """Also append everything that Python prints inside the block to the file `path`.

    Args:
        path: the log file; None records nothing, and still keeps the program alive where its output is gone.
    """
    with ExitStack() as stack:
        log = None
        if path is not None:
            log = stack.enter_context(path.open("a", encoding="utf-8", errors="replace"))
        out, err = Recorder(sys.stdout, log), Recorder(sys.stderr, log)
        handlers = [h for name in _LIBRARIES for h in logging.getLogger(name).handlers]
        streams = [h for h in handlers if isinstance(h, logging.StreamHandler) and h.stream is sys.stderr]
        for handler in streams:
            stack.callback(handler.setStream, handler.stream)
            handler.setStream(err)
        stack.callback(out.finish)
        stack.callback(err.finish)
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        yield


@contextmanager
def drawn_over(console: object, proxy: Callable[..., Any]) -> Iterator[None]:
    """While `console` draws at the bottom of the terminal, printed lines scroll above it.

    Args:
        console: a `rich.console.Console` on the terminal itself.
        proxy: `rich.file_proxy.FileProxy`.
    """
    before = [(stream, stream.stream) for stream in (sys.stdout, sys.stderr) if isinstance(stream, Recorder)]
    for stream, inner in before:
        if inner is not None and inner.isatty():
            stream.stream = proxy(console, inner)
    try:
        yield
    finally:
        for stream, inner in before:
            stream.stream = inner

"""Lines for terminals, pipes and logs; commands that can be copied; and what happens where nobody listens."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from kmax.console import Recorder, command_to_go_on, digits, duration, override, plain, recording

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("value", "text"),
    [(20.95312, "20.95"), (0.000123456, "0.0001235"), (123456.7, "123457"), (0.0, "0"), (5, "5"), (None, "–")],
)
def test_numbers_have_four_digits(value: float | None, text: str) -> None:
    assert digits(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (125, "0:02:05"), (90061, "1 d 1:01:01"), (None, "–"), (-3, "0:00:00")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@given(NAMES)
def test_an_override_is_read_as_it_was_meant(name: str) -> None:
    read = OverridesParser.create().parse_override(override("ckpt", name)).value()
    assert str(read) == name or (
        isinstance(read, (bool, float)) or read is None
    )  # true, 1.0: no quotes needed to be a path


@pytest.mark.parametrize("name", ["it's", "a\\", "a\\'b", "\\\\", "a b", "(1)", "[x]", "a=b", "ü.jpg", "a,b", "写真"])
def test_awkward_names_are_read_as_they_were_meant(name: str) -> None:
    parsed = OverridesParser.create().parse_override(override("ckpt", name))
    assert parsed.value() == name
    assert parsed.key_or_group == "ckpt"


@given(st.text())
def test_foreign_text_is_one_line_without_escape_codes(text: str) -> None:
    shown = plain(text)
    assert shown.isprintable()
    assert plain("cat [/x]\x1b[2J\n") == "cat [/x]\\x1b[2J\\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train.py", "optimizer.lr=1e-3"], ["optimizer.lr=1e-3", "hydra.run.dir=runs/a"]),
        (["train.py", "resume=never", "hydra.run.dir=x"], ["hydra.run.dir=runs/a"]),
        (["train.py", "-m", "seed=1,2", "hydra.sweep.dir=y"], ["-m", "seed=1,2", "hydra.sweep.dir=runs"]),
    ],
)
def test_the_command_that_goes_on(arguments: list[str], expected: list[str]) -> None:
    assert shlex.split(command_to_go_on(Path("runs/a"), arguments)) == ["python", "train.py", *expected]


def test_a_log_holds_what_was_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "train.log"
    with recording(log):
        print("one")
        print("\x1b[31mred\x1b[0m · ä", file=sys.stderr)
        print("10 %\r20 %")
        print("no end", end="")
    with recording(log):
        print("another start")
    assert log.read_text(encoding="utf-8") == "one\nred · ä\n20 %\nno end\nanother start\n"
    captured = capsys.readouterr()
    assert captured.out == "one\n10 %\r20 %\nno endanother start\n"
    assert captured.err == "\x1b[31mred\x1b[0m · ä\n"


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


class FullDisk(io.StringIO):
    def flush(self) -> None:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [None, Broken(), io.TextIOWrapper(io.BytesIO(), "ascii")])
def test_a_program_goes_on_where_nobody_listens(stream: Any) -> None:
    log = io.StringIO()
    recorder = Recorder(stream, log)
    print("1 device × 2 · 写真", file=recorder)
    recorder.flush()
    assert log.getvalue() == "1 device × 2 · 写真\n"
    if isinstance(stream, io.TextIOWrapper):
        stream.flush()
        assert stream.buffer.getvalue() == b"1 device ? 2 ? ??\n"  # type: ignore[attr-defined]


def test_a_full_disk_ends_the_log_only() -> None:
    out = io.StringIO()
    recorder = Recorder(out, FullDisk())
    print("a\nb", file=recorder)
    assert out.getvalue() == "a\nb\n"

"""The signals that stop a run, and what SLURM is told."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmax.strategy.signals import CTRL_C, NAMES, StopSignals, job_id, requeue


@pytest.fixture
def handlers() -> Iterator[None]:
    """What handled the signals before does so again afterwards."""
    before = {name: signal.getsignal(getattr(signal, name)) for name in (*NAMES, CTRL_C)}
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_only_sets_a_flag(name: str, handlers: None) -> None:
    signals = StopSignals()
    signal.signal(getattr(signal, name), signal.SIG_DFL)
    signals.listen()
    assert signals.received is None
    os.kill(os.getpid(), getattr(signal, name))
    assert signals.received == name


def test_under_nohup_a_closed_terminal_is_ignored(handlers: None) -> None:
    signals = StopSignals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.listen()
    os.kill(os.getpid(), signal.SIGHUP)
    assert signals.received is None


def test_a_second_ctrl_c_is_the_system_s(handlers: None, capfd: pytest.CaptureFixture[str]) -> None:
    signals = StopSignals()
    signals.listen_to_ctrl_c()
    os.kill(os.getpid(), signal.SIGINT)
    assert signals.received == "SIGINT"
    assert "once more ends it at once, unsaved" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL, "another one ends the process"


def test_ctrl_c_is_handed_back(handlers: None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in background jobs
    signals = StopSignals()
    signals.listen_to_ctrl_c()
    signals.leave_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert signals.received is None


def test_the_job_of_an_array_is_its_task() -> None:
    assert job_id({}) is None
    assert job_id({"SLURM_JOB_ID": "7"}) == "7"
    array = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "3"}
    assert job_id(array) == "8_3"


@pytest.mark.parametrize(
    ("state", "refusal", "sentence", "requeued"),
    [
        ("RUNNING", "", "SLURM job 5 requeued", True),
        ("CANCELLED", "", "was canceled and is not requeued", False),
        ("RUNNING", "Requested operation is disabled", r"does not requeue job 5 \(Requested operation", True),
    ],
)
def test_requeueing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, refusal: str, sentence: str, requeued: bool
) -> None:
    script = tmp_path / "scontrol"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
        f'case $1 in show) echo "JobState={state}";; requeue) printf "%s" "{refusal}" >&2;; esac\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert "same command" in requeue()
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    import re

    assert re.search(sentence, requeue())
    assert ("requeue 5" in (tmp_path / "calls").read_text()) is requeued


def test_without_scontrol_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("PATH", "")
    assert "submit it again" in requeue()

"""The signals that stop a run, and what SLURM is told."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from kmax.strategy.signals import StopSignals, job_id, requeue


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGTERM"])
def test_a_signal_only_sets_a_flag(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    signals = StopSignals()
    try:
        signals.listen()
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == name
    finally:
        for other in ("SIGUSR1", "SIGUSR2", "SIGTERM"):
            signal.signal(getattr(signal, other), signal.SIG_DFL)
        signal.signal(number, before)


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

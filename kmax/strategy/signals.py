"""Signals that ask a run to stop, and giving its job back to SLURM."""

from __future__ import annotations

import os
import signal
import subprocess
from types import FrameType
from typing import Any

STOPPED = 75
"""Exit status of a run that was asked to stop and can be resumed (`EX_TEMPFAIL`: try again)."""
NAMES = ("SIGUSR1", "SIGUSR2", "SIGTERM", "SIGHUP")
"""What asks a run to stop: batch systems, `kill`, and a terminal that is closed."""
CTRL_C = "SIGINT"


class StopSignals:
    """Remembers that one of `NAMES`, or Ctrl-C, arrived.

    The handler only sets a flag, so that the current work, e.g. writing a checkpoint, is finished first. A second
    Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: Any = signal.default_int_handler
        self.agreed: bool | None = None  # whether any rank was asked, if ranks have exchanged that in this step

    def listen(self) -> None:
        """Handle the signals, instead of the default action or of other handlers; a signal that is ignored (SIGHUP
        under `nohup`) stays ignored."""
        for name in NAMES:
            if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:
                signal.signal(getattr(signal, name), self._note)

    def listen_to_ctrl_c(self) -> None:
        """Handle Ctrl-C too, as soon as there is something to save, until `leave_ctrl_c`. Also if it is ignored: shells
        ignore it in background jobs, where `kill -INT` should still work."""
        if self.received is None:
            self._before = signal.signal(signal.SIGINT, self._note)

    def leave_ctrl_c(self) -> None:
        """Restore the previous handler of Ctrl-C."""
        if signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if self.received == CTRL_C:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends the process even if Python code gets no chance to run
            if os.environ.get("LOCAL_RANK", "0") == "0":
                os.write(2, _AT_CTRL_C)  # the handler may have interrupted a print, which is not reentrant


_AT_CTRL_C = b"\nCtrl-C: this step is finished, then the run is saved; once more ends it at once, unsaved.\n"


STOP_SIGNALS = StopSignals()
"""The only instance: signals belong to the process."""


class Stopped(SystemExit):
    """The run was asked to stop and has left a checkpoint; `code` is the exit status of this rank.

    Only rank 0 exits with the special status: a launcher must not take those of other ranks for a crash.
    """

    def __init__(self, rank: int) -> None:
        super().__init__(STOPPED if rank == 0 else 0)


def job_id(environment: dict[str, str] | os._Environ[str] = os.environ) -> str | None:
    """The SLURM job, `array_task` for one of an array; None outside SLURM."""
    if "SLURM_ARRAY_JOB_ID" in environment and "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def requeue(go_on: str = "start it again with the same command") -> str:
    """Give the job back to SLURM, which starts it again, unless it was canceled; returns a sentence on what was done.

    In an allocation without a batch script there is nothing to start again, which SLURM answers with a refusal.

    Args:
        go_on: what a user has to do without SLURM.
    """
    job = job_id()
    if job is None:
        return f"To go on: {go_on}"
    if "JobState=CANCELLED" in _scontrol("show", "job", job):
        return f"SLURM job {job} was canceled and is not requeued"
    refusal = _scontrol("requeue", job)
    return f"SLURM does not requeue job {job} ({refusal}): submit it again" if refusal else f"SLURM job {job} requeued"


def _scontrol(*arguments: str) -> str:
    """The output of `scontrol`."""
    try:
        result = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (result.stdout + result.stderr).strip()

"""A run that was interrupted ends with the weights, to the last bit, of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from conftest import ROOT
from kmax.callbacks import STOP_SIGNALS, Stopped
from kmax.strategy.signals import STOPPED
from small_run import OVERRIDES, folders, one_thread, run


class Interrupt(BaseException):
    """Ends a run as abruptly as an exception can."""


class At(Callback):
    """Call `action` once, at the `count`-th time that `hook` is called."""

    def __init__(self, hook: str, count: int, action: Callable[[], Any]) -> None:
        self.count, self.action = count, action
        setattr(self, hook, self._called)

    def _called(self, *arguments: Any, **options: Any) -> None:
        self.count -= 1
        if self.count == 0:
            self.action()


def interrupt() -> None:
    raise Interrupt


def stop() -> None:
    STOP_SIGNALS.received = "SIGUSR1"


def checkpoint(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in leaves(item, f"{path}/{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for key, item in enumerate(value) for k, v in leaves(item, f"{path}/{key}").items()}
    return {path: value}


def assert_same_state(first: Path, second: Path) -> None:
    """Weights, optimizer, schedule, random numbers, positions and scores are equal, whatever folder they lie in."""
    for name in ("best", "last"):
        one, two = (
            {key.replace(str(folder), ""): value for key, value in leaves(checkpoint(folder, name)).items()}
            for folder in (first, second)
        )
        assert one.keys() == two.keys()
        assert [key for key in one if not _same(one[key], two[key], key)] == []


def _same(first: Any, second: Any, key: str) -> bool:
    # Paths differ; a validation that was begun anew counts as one batch more; Lightning does not restore current_score.
    if any(name in key for name in ("/kmax_config", "val_loop.batch_progress", "/current_score")):
        return True
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return isinstance(first, str) or first == second


@pytest.fixture(autouse=True, scope="module")
def _quiet_process() -> Iterator[None]:
    """No signal before, one thread (many small operations on few cores), and the signals' handlers as they were."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)}
    STOP_SIGNALS.received = None
    with one_thread():
        yield
    STOP_SIGNALS.received = None
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(folder)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("hook", "count", "workers"),
    [
        ("on_train_batch_end", 7, 0),  # in the midst of an accumulation
        pytest.param("on_train_batch_start", 2, 0, marks=pytest.mark.slow),  # before anything was saved
        ("on_train_batch_start", 6, 2),  # between two steps, workers ahead
        ("on_validation_batch_start", 2, 0),  # first validation
        pytest.param("on_validation_end", 1, 0, marks=pytest.mark.slow),
        pytest.param("on_train_batch_start", 16, 0, marks=pytest.mark.slow),  # last batch
        pytest.param("on_validation_batch_start", 6, 0, marks=pytest.mark.slow),
    ],
)
def test_killed_and_started_again(uninterrupted: Path, tmp_path: Path, hook: str, count: int, workers: int) -> None:
    with pytest.raises(Interrupt):
        run(tmp_path, f"strategy.num_workers={workers}", callbacks=[At(hook, count, interrupt)])
    run(tmp_path, f"strategy.num_workers={workers}")
    assert_same_state(uninterrupted, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_batch_start"])
def test_killed_under_a_moving_average(tmp_path: Path, hook: str) -> None:
    options = ("optimizer.ema_decay=0.5", "optimizer.clip_norm=0.5", "backbone.checkpointing=true")
    run(tmp_path / "whole", *options)
    with pytest.raises(Interrupt):
        run(tmp_path / "killed", *options, callbacks=[At(hook, 5, interrupt)])
    run(tmp_path / "killed", *options)
    assert_same_state(tmp_path / "whole", tmp_path / "killed")
    assert "current_model_state" in checkpoint(tmp_path / "killed")


def start(folder: Path) -> subprocess.Popen[str]:
    """`train.py` as a user starts it, with two workers."""
    overrides = [*OVERRIDES, *folders(folder), "strategy.num_workers=2", f"hydra.run.dir={folder}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("a") as output:
        command = [sys.executable, str(ROOT / "train.py"), *overrides]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output, text=True)


def signal_after_next_checkpoint(folder: Path, process: subprocess.Popen[str], number: signal.Signals) -> int:
    """Send a signal at some moment after the next checkpoint is written; returns the exit status."""
    last = folder / "checkpoints/last.ckpt"
    before = last.stat().st_mtime_ns if last.exists() else 0
    while process.poll() is None and (last.stat().st_mtime_ns if last.exists() else 0) == before:
        time.sleep(0.01)
    time.sleep(random.Random().uniform(0, 0.2))
    process.send_signal(number)
    return process.wait(timeout=300)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_signals_to_a_real_process(uninterrupted: Path, tmp_path: Path) -> None:
    """`kill -9`, then SIGUSR1, then to the end: three processes, one result."""
    output = tmp_path / "output.txt"
    assert signal_after_next_checkpoint(tmp_path, start(tmp_path), signal.SIGKILL) == -signal.SIGKILL
    assert signal_after_next_checkpoint(tmp_path, start(tmp_path), signal.SIGUSR1) == STOPPED, output.read_text()
    assert "Stopped by SIGUSR1 after step" in output.read_text()
    assert f"hydra.run.dir={tmp_path}" in output.read_text().split("To go on: ")[1].splitlines()[0]
    assert start(tmp_path).wait(timeout=300) == 0, output.read_text()
    assert output.read_text().count("Going on from") == 2
    assert_same_state(uninterrupted, tmp_path)


@pytest.mark.long
def test_stopped_before_a_validation(uninterrupted: Path, tmp_path: Path) -> None:
    """A signal in the step after which validation is due: the run leaves at once and validates when it continues."""

    def stop() -> None:
        STOP_SIGNALS.received = "SIGTERM"

    with pytest.raises(Stopped) as stopped:
        run(tmp_path, callbacks=[At("on_train_batch_start", 6, stop)])
    assert stopped.value.code == STOPPED
    assert not (tmp_path / "checkpoints/best.ckpt").exists()
    STOP_SIGNALS.received = None
    run(tmp_path)
    assert_same_state(uninterrupted, tmp_path)

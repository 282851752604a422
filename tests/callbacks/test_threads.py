"""The number of threads follows the free cores during a run."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kmax.callbacks import FitThreads, threads


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Machine:
    """Other processes leave `free` cores."""

    free = 3.0

    def __call__(self) -> float:
        return self.free


def start(monkeypatch: pytest.MonkeyPatch, device: str = "cpu") -> tuple[Any, Any, Machine]:
    machine = Machine()
    monkeypatch.setattr(threads, "FreeCores", lambda: machine)
    monkeypatch.setattr(threads, "fit_threads", lambda: None)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
    callback: Any = FitThreads(seconds=0)
    callback.setup(trainer, None, "fit")
    return callback, trainer, machine


def test_threads_follow_the_free_cores_and_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    callback, trainer, machine = start(monkeypatch)
    seen = []
    for machine.free in (1.0, 0.0, 2.2, 8.0, 1.2):
        callback.on_train_batch_end(trainer, None, None, None, 0)
        seen.append(torch.get_num_threads())
    assert seen == [1, 1, 2, 3, 1]
    callback.teardown(trainer, None, "fit")
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("why", ["given", "deterministic", "gpu"])
def test_threads_stay_where_they_must(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "given":
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
    if why == "deterministic":
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    callback, trainer, machine = start(monkeypatch, "meta" if why == "gpu" else "cpu")
    machine.free = 1.0
    callback.on_validation_batch_end(trainer, None, None, None, 0)
    assert torch.get_num_threads() == 3

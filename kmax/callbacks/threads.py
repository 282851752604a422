"""A number of threads that follows what other processes leave of the cores."""

from __future__ import annotations

import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from kmax.strategy.threads import FreeCores, fit_threads, threads_are_given, threads_for


class FitThreads(Callback):
    """On a CPU, use as many threads as there are free cores: at the start, and again every `seconds`.

    Does nothing where `OMP_NUM_THREADS` is set (as with several processes per machine), nor under deterministic
    algorithms: sums depend on the number of threads in their last digits.
    """

    def __init__(self, seconds: float = 15.0) -> None:
        self._seconds = seconds
        self._free: FreeCores | None = None
        self._most = 1
        self._next = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._most = torch.get_num_threads() if self._free is None else self._most
        fixed = threads_are_given() or torch.are_deterministic_algorithms_enabled()
        if self._free is not None or self._most == 1 or fixed or trainer.strategy.root_device.type != "cpu":
            return
        try:
            self._free = FreeCores()
        except OSError:
            return
        fit_threads()
        self._next = time.monotonic() + self._seconds

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._free is not None:
            torch.set_num_threads(self._most)
            self._free = None

    def on_train_batch_end(self, *_: object) -> None:
        self._look()

    def on_validation_batch_end(self, *_: object) -> None:
        self._look()

    def _look(self) -> None:
        if self._free is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._seconds
        threads = threads_for(self._free(), self._most)
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)

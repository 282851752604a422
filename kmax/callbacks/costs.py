"""What a run costs, beside what it achieves: parameters and the time of a step."""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from time import monotonic

from lightning.pytorch import Callback, LightningModule, Trainer

PARAMETERS, SECONDS = "cost/parameters", "cost/step_seconds"


class Costs(Callback):
    """Log the number of parameters, and the median time of an optimizer step since the last validation in seconds, with
    each validation. Sweeps compare them (`scripts/plot_sweep.py`)."""

    def __init__(self) -> None:
        self._marks: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._marks = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._marks.append(monotonic())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        marks, self._marks = self._marks, []
        if trainer.sanity_checking or len(marks) < 2:
            return
        costs = {
            PARAMETERS: float(sum(parameter.numel() for parameter in pl_module.parameters())),
            SECONDS: median(after - before for before, after in pairwise(marks)),
        }
        for logger in trainer.loggers:
            logger.log_metrics(costs, step=max(0, trainer.global_step - 1))

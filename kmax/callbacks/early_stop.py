"""The end of a run that no longer improves."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping


class EarlyStop(EarlyStopping):
    """Stop after `patience` validations without a better `monitor`.

    A mask transformer has a panoptic quality of 0 for a long time, and the first values above it jump: validations with
    a value of 0, and those in the first part of the run, are not counted.

    Args:
        monitor: a metric of validation, the higher the better.
        patience: validations.
        start: the part of the run that is not counted, from 0 to 1.
    """

    def __init__(self, monitor: str, patience: int = 8, start: float = 1 / 3) -> None:
        super().__init__(monitor, patience=patience, mode="max", strict=False, verbose=False)
        self._start = start

    def _should_skip_check(self, trainer: Trainer) -> bool:
        value = trainer.callback_metrics.get(self.monitor)
        early = trainer.global_step < self._start * trainer.max_steps or (value is not None and float(value) == 0.0)
        return early or super()._should_skip_check(trainer)

"""How long a run will take, said once its first steps were measured."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from kmax.callbacks.pace import Pace
from kmax.console import digits


class Estimate(Callback):
    """Print the time that the whole run will take, after its first `steps` steps.

    Validations are not part of it: none has been measured yet.
    """

    def __init__(self, steps: int = 20) -> None:
        self._steps = steps
        self._pace: Pace | None = None
        self._start = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pace, self._start = Pace(), trainer.global_step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._pace is not None:
            self._pace.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._pace is not None:
            self._pace.go_on()

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if self._pace is None:
            return
        self._pace.mark(trainer.global_step)
        if trainer.global_step - self._start < self._steps:
            return
        rate, self._pace = self._pace.steps_per_second, None
        left = trainer.max_steps - trainer.global_step
        if rate and left > 0 and trainer.is_global_zero:
            print(f"{digits(1 / rate)} s a step: about {time_of(left / rate)} and the validations", flush=True)


def time_of(seconds: float) -> str:
    """Hours or minutes, rounded: `3.2 h`, `25 min`, `less than a minute`."""
    if seconds < 60:
        return "less than a minute"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

"""A progress bar that does not make every step wait for the device."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """Lightning's bar, whose numbers are read every `refresh_rate` batches: to read one is to wait for its step."""

    def __init__(self, refresh_rate: int = 10, **options: Any) -> None:
        super().__init__(refresh_rate=refresh_rate, **options)
        self._shown: dict[str, Any] = {}

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        if not trainer.training or not self._shown or trainer.fit_loop.total_batch_idx % self.refresh_rate == 0:
            self._shown = super().get_metrics(trainer, pl_module)
        return self._shown

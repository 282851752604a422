"""A message at the end about images that training had to skip."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn


class SkippedFiles(Callback):
    """Log how many unreadable images training has skipped so far (`train/skipped_files`), and say so at the end."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        count = getattr(getattr(trainer, "datamodule", None), "skipped_files", 0)
        if count:
            rank_zero_warn(f"Training skipped unreadable images {count} times; each was named when it happened.")

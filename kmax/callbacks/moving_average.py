"""An exponential moving average of the weights, on the device of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kmax.checkpoint.own import CheckpointDict


class MovingAverage(Callback):
    """Validate and save an exponential moving average of weights and running statistics.

    The average starts as the weights after the first optimizer step of the run; then each step moves it by the
    fraction 1 − `decay` toward the current weights, in a few kernels on their device. Counters of batches are not
    averaged. A checkpoint's `state_dict` is the average, its `current_model_state` are the weights that training
    resumes (as in checkpoints of Lightning's `EMAWeightAveraging`, which can be resumed from). At the end of training
    the module holds the average.

    Raises:
        ValueError: `decay` is not between 0 and 1.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay={decay} must lie between 0 and 1, e.g. 0.9999.")
        self.decay = decay
        self._move = get_ema_multi_avg_fn(decay)
        self._current: dict[str, Tensor] = {}  # the module's own tensors
        self._average: dict[str, Tensor] = {}
        self._restored: Mapping[str, Tensor] = {}
        self._updates = self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._current, self._average, self._restored, self._updates = {}, {}, {}, 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: CheckpointDict) -> None:
        if trainer.state.fn == "fit" and "current_model_state" in checkpoint:
            self._restored = checkpoint["state_dict"]
            self._updates = int(checkpoint["averaging_state"]["n_averaged"])
            pl_module.load_state_dict(checkpoint["current_model_state"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # By now the module is on its device.
        self._current = {name: value for name, value in pl_module.state_dict().items() if value.is_floating_point()}
        self._average = {name: value.clone() for name, value in self._current.items()}
        for name in self._restored:
            if name in self._average:
                self._average[name].copy_(self._restored[name])
        self._restored = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # only accumulated
        self._step = trainer.global_step
        if self._updates == 0:
            self._copy(self._average, self._current)
        else:
            self._move(list(self._average.values()), list(self._current.values()), self._updates)
        self._updates += 1

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._copy(self._current, self._average)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: CheckpointDict) -> None:
        if self._average:
            checkpoint["current_model_state"] = checkpoint["state_dict"]
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **self._average}
            checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self._updates)}

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self._average.items():
            kept = average.clone()
            average.copy_(self._current[name])
            self._current[name].copy_(kept)

    @staticmethod
    @torch.no_grad()
    def _copy(target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
        for name, value in target.items():
            value.copy_(source[name])

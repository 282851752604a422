"""Skip steps whose loss or gradient is not finite, on all ranks, and write a report."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from kmax.data.loader import TrainingLoader
from kmax.strategy.signals import STOP_SIGNALS


class NonFiniteGuard(Callback):
    """Skip the optimizer steps whose loss or gradient is not finite on any rank.

    All ranks go through the backward pass, so that none waits for another, and agree before the optimizer steps. A
    skipped step leaves weights, moments and running statistics as they were; schedule and step counter advance. The
    number of skipped steps is logged as `train/skipped_steps`. The first one on each rank is described in
    `folder`/nonfinite-step…-rank….json: the draws of its batches, from which the data can be reproduced, and the
    configuration. With float16 the gradient scaler skips steps while it looks for its scale; those count too.

    Args:
        folder: of the run.
        max_in_a_row: this many skipped steps in a row end the run with a ValueError.
    """

    def __init__(self, folder: str | Path, max_in_a_row: int = 50) -> None:
        self.folder, self.max_in_a_row = Path(folder), max_in_a_row
        self.skipped = self.in_a_row = 0
        self._dumped = False
        self._losses: list[Tensor] = []
        self._draws: list[list[tuple[int, int]]] = []
        self._statistics: list[Tensor] = []  # running means and variances
        self._kept: list[Tensor] = []  # their values before the step
        self._count = torch.zeros(())  # of skipped steps, on the module's device

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        norms = [module for module in pl_module.modules() if isinstance(module, _BatchNorm)]
        self._statistics = [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
        self._kept = [buffer.clone() for buffer in self._statistics]
        self._count = torch.full((), float(self.skipped), device=pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if not self._losses:  # the first batch of a step
            self._copy(self._kept, self._statistics)
        loader = trainer.train_dataloader
        self._draws.append(loader.last_draws() if isinstance(loader, TrainingLoader) else [])

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        losses = torch.stack(self._losses)
        norm = torch.nn.utils.get_total_norm(gradients)
        asked = torch.full_like(norm, float(STOP_SIGNALS.received is not None))
        flags = torch.stack([~losses.isfinite().all(), ~norm.isfinite(), asked != 0]).float()
        # One exchange and one wait for the device per optimizer step, for `ResumeCheckpoint` as well.
        bad_loss, bad_gradient, stop = trainer.strategy.reduce(flags, reduce_op="max").tolist()
        STOP_SIGNALS.agreed = bool(stop)
        if bad_loss or bad_gradient:
            self._skip(trainer, optimizer, gradients)
            own = not bool(losses.isfinite().all())
            if not self._dumped and (own or (trainer.is_global_zero and not bad_loss and not scaler_of(trainer))):
                self._dump(trainer, pl_module, losses)
        else:
            self.in_a_row = 0
        self._losses, self._draws = [], []
        if self.in_a_row >= self.max_in_a_row:
            what = "loss" if bad_loss else "gradient"
            raise ValueError(
                f"The {what} was not finite in {self.in_a_row} steps in a row: look at {self.folder}/nonfinite-*.json, "
                "lower the learning rate, or set the precision to bf16-mixed or 32-true."
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        pl_module.log("train/skipped_steps", self._count)  # a Python number would be copied to the device in every step

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def _skip(self, trainer: Trainer, optimizer: torch.optim.Optimizer, gradients: list[Tensor]) -> None:
        self.skipped += 1
        self.in_a_row += 1
        self._count = self._count + 1
        self._copy(self._statistics, self._kept)
        with torch.no_grad():
            if scaler_of(trainer) and getattr(optimizer, "_step_supports_amp_scaling", False):
                gradients[0].fill_(torch.nan)  # a fused optimizer checks for non-finite values itself
            else:
                optimizer.zero_grad(set_to_none=True)

    @staticmethod
    @torch.no_grad()
    def _copy(target: list[Tensor], source: list[Tensor]) -> None:
        if target:
            torch._foreach_copy_(target, source)  # a few kernels instead of two per norm

    def _dump(self, trainer: Trainer, pl_module: LightningModule, losses: Tensor) -> None:
        self._dumped = True
        scaler = scaler_of(trainer)
        description = {
            "step": trainer.global_step,
            "rank": trainer.global_rank,
            "losses": [str(loss) for loss in losses.tolist()],
            "draws (epoch, index) of each batch": self._draws,
            "scale": scaler.get_scale() if scaler else None,
            "precision": trainer.precision,
            "config": getattr(pl_module, "config", {}),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"nonfinite-step{trainer.global_step:07d}-rank{trainer.global_rank}.json"
        path.write_text(json.dumps(description, indent=1, default=str))
        print(f"Step {trainer.global_step} is skipped: it is not finite; {path} says what it was made of.", flush=True)


def scaler_of(trainer: Trainer) -> torch.amp.GradScaler | None:
    """The gradient scaler of a run in float16."""
    return getattr(trainer.precision_plugin, "scaler", None)

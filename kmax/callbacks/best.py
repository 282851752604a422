"""The best weights so far, and a line about each validation."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from kmax.console import joined, percent
from kmax.files import Json


class BestCheckpoint(ModelCheckpoint):
    """Keep the weights with the highest `monitor` as `best.ckpt`, and print a line about each validation.

    Among equal values the newest is kept. While `monitor` is 0, as panoptic quality is for a long time, the weights
    with the lower training loss since the last validation are kept. Checkpoints also store the metrics of the best
    weights.

    Args:
        folder: of the checkpoints.
        monitor: a metric of validation, the higher the better.
    """

    def __init__(self, folder: str | Path, monitor: str) -> None:
        super().__init__(
            dirpath=folder, filename="best", monitor=monitor, mode="max", enable_version_counter=False, save_top_k=1
        )
        self.best_metrics: dict[str, float] = {}
        self.best_step: int | None = None
        self._best_loss = float("inf")
        self._losses: Tensor | None = None  # (2,): sum and number of finite losses since the last validation
        self._restored: list[float] = [0.0, 0.0]
        self._loss = float("inf")  # their mean over all ranks at this validation

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        with warnings.catch_warnings():  # a resumed run finds its own files
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._losses = torch.tensor(self._restored, device=pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and self._losses is not None:
            finite = loss.detach().isfinite()
            values = torch.stack([torch.where(finite, loss.detach(), 0.0), finite.to(loss.dtype)])
            self._losses = self._losses + values.to(self._losses)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(k for k in trainer.callback_metrics if k.startswith("val/")))
            raise ValueError(
                f"The metric of the best checkpoint, {self.monitor}, is not measured; measured are {known}."
            )
        if self._losses is not None:
            total, count = trainer.strategy.reduce(self._losses.clone(), reduce_op="sum").tolist()
            self._loss = total / count if count else float("inf")
            self._losses, self._restored = torch.zeros_like(self._losses), [0.0, 0.0]
        super().on_validation_end(trainer, pl_module)
        if trainer.is_global_zero:
            print(self._line(trainer), flush=True)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the weights of this validation become the best; the same on all ranks."""
        if current is None:
            return False
        value, best = float(current), self.best_model_score
        tie = best is not None and value == float(best)
        better = best is None or value > float(best) or (tie and (value != 0 or self._loss <= self._best_loss))
        better = trainer.strategy.reduce_boolean_decision(better)
        if better:  # before saving, so that best.ckpt contains its own metrics
            self._best_loss, self.best_step = self._loss, trainer.global_step
            self.best_metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        return better

    def state_dict(self) -> Json:
        losses = self._restored if self._losses is None else self._losses.tolist()
        own = {"best_metrics": self.best_metrics, "best_step": self.best_step, "best_loss": self._best_loss}
        return {**super().state_dict(), **own, "losses": losses}

    def load_state_dict(self, state_dict: Json) -> None:
        self._restored = list(state_dict.get("losses", (0.0, 0.0)))
        same = (str(state_dict.get("dirpath")), state_dict.get("monitor")) == (str(self.dirpath), self.monitor)
        if not same or not Path(state_dict["best_model_path"]).is_file():
            return  # a run that continues in another folder, or by another metric, finds its own best
        super().load_state_dict(state_dict)
        self.best_metrics = state_dict.get("best_metrics", {})
        self.best_step = state_dict.get("best_step")
        self._best_loss = state_dict.get("best_loss", float("inf"))

    def _line(self, trainer: Trainer) -> str:
        """step 400/1600 · PQ 12.34 · things 10.00 · stuff 15.00 · best 12.34 at step 400 · checkpoints/best.ckpt"""
        values = trainer.callback_metrics
        names = {"val/pq": "PQ", "val/pq_things": "things", "val/pq_stuff": "stuff"}
        if self.monitor is not None and self.monitor not in names:
            names = {self.monitor: self.monitor, **names}
        parts = [f"{title} {percent(float(values[name]))}" for name, title in names.items() if name in values]
        fresh = self.best_step == trainer.global_step
        best = f"best {percent(float(self.best_model_score or 0.0))} at step {self.best_step}"
        file = Path(self.best_model_path)
        written = f"{file.parent.name}/{file.name} written" if fresh else ""
        return joined(f"validated at step {trainer.global_step}/{trainer.max_steps}", *parts, best, written)

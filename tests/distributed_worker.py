"""One of two ranks: `python distributed_worker.py FOLDER`, with the addresses in the environment (test_distributed.py).

Ranks train together into FOLDER/equal, where their weights are compared with those of one process; then into
FOLDER/odd, where rank 1 alone meets an image without segments and a loss that is not finite; then rank 1 freezes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import kmax.module
from kmax.structures import VOID, Target
from small_run import run

EQUAL = (
    "optimizer.steps=5",
    "trainer.val_every_steps=5",
    "model.drop_path=0.0",
    "strategy.batch_size_per_device=null",
    "strategy.sync_batchnorm=true",
)
TWO = ("strategy.devices=2", "strategy.strategy=ddp")


class Exact(Callback):
    """What depends on how a batch is spread over ranks is taken out: drawn pixels, and the order of sums, which does
    not show in double precision. Statistics of a batch are those of all ranks."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pl_module.double()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.criterion.options = replace(pl_module.criterion.options, samples=10**6)


class Odd(Callback):
    """On rank 1, step 1 has no segment and the loss of step 2 is not finite."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.original = pl_module.criterion.forward
        pl_module.criterion.forward = lambda output, targets: self.losses(trainer, output, targets)

    def losses(self, trainer: Trainer, output: Any, targets: tuple[Target, ...]) -> Any:
        step = trainer.global_step
        if trainer.global_rank == 1 and step == 1:
            empty = torch.full_like(targets[0].segment_map, VOID)
            targets = tuple(Target(empty, target.labels[:0]) for target in targets)
        losses = self.original(output, targets)
        if trainer.global_rank == 1 and step == 2:
            poisoned = replace(losses.predictions, mask=losses.predictions.mask * torch.nan)
            losses = replace(losses, predictions=poisoned)
        return losses


class Freeze(Callback):
    """Rank 1 stops dead in its second step, as a process on a node that hangs."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 1 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)


def double(images: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    return (images.double() - 127.5) / 127.5 * valid[:, None]


def equal(folder: Path, *overrides: str) -> float:
    """Train with `Exact`."""
    original, kmax.module.normalize = kmax.module.normalize, double
    try:
        return run(folder, *EQUAL, *overrides, callbacks=[Exact()])
    finally:
        kmax.module.normalize = original


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    print("metric", equal(folder / "equal", *TWO), flush=True)
    run(folder / "odd", "optimizer.steps=4", "trainer.val_every_steps=4", *TWO, callbacks=[Odd()])
    print("odd done", flush=True)
    quick = ("+callbacks.heartbeat.every=0.5", "+callbacks.heartbeat.patience=6")
    print("freezing", time.time(), flush=True)
    run(folder / "frozen", *TWO, *quick, callbacks=[Freeze()])
    print("not reached", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

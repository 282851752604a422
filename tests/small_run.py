"""A training run of a second or two in this process, for the tests of what surrounds the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

import kmax.config.build
import train
from kmax.config.compose import compose_config

SMALL_MODEL = (
    "backbone.name=test_resnet",
    "model.widths=[16,16,16,16]",
    "model.dim=32",
    "model.feature_dim=16",
    "model.ffn_dim=32",
    "model.heads=4",
    "model.decoder_heads=4",
    "model.drop_path=0.2",
    "dataset.size=[65,65]",
    "dataset.train.length=10",
)
"""A model and images that train in moments, with random paths dropped."""

OVERRIDES = (
    *SMALL_MODEL,
    "dataset.val.length=3",
    "dataset.batch_size=4",
    "loss.samples=64",
    "optimizer.steps=8",
    "optimizer.warmup_steps=3",
    "trainer.val_every_steps=3",
    "trainer.save_every_steps=2",
    "trainer.log_every_steps=1",
    "trainer.enable_progress_bar=false",
    "strategy=cpu",
    "strategy.num_workers=0",
    "strategy.batch_size_per_device=2",
)
"""Eight steps of two accumulated batches each, with random paths dropped and random pixels drawn."""


def folders(folder: Path) -> tuple[str, ...]:
    """Overrides that let a run write to `folder` where no Hydra job says where it writes to."""
    return (
        f"callbacks.checkpoint.folder={folder}/checkpoints",
        f"callbacks.resume.folder={folder}/checkpoints",
        f"callbacks.nonfinite.folder={folder}",
        "~callbacks.panels",
        f"logger.csv.save_dir={folder}",
    )


def run(folder: Path, *overrides: str, callbacks: Sequence[Callback] = (), base: Sequence[str] = OVERRIDES) -> float:
    """Train into `folder`, with further callbacks; returns the metric."""
    config = compose_config(None, *base, *folders(folder), *overrides)
    original = kmax.config.build.build_callbacks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kmax.config.build, "build_callbacks", lambda options: [*original(options), *callbacks])
        return train.train(config)


@contextmanager
def one_thread() -> Iterator[None]:
    """Many small operations on few cores are faster so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

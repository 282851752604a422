"""Train a k-means mask transformer: `python train.py experiment=coco_resnet50 strategy=ddp_multinode`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from kmax.strategy.signals import STOP_SIGNALS

if __name__ == "__main__" and "SLURM_JOB_ID" in os.environ:
    STOP_SIGNALS.listen()  # the imports below take seconds, and a job must not die of being asked to stop meanwhile

import hydra
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities import rank_zero_only

from kmax.callbacks import checkpoint_to_resume
from kmax.config.build import (
    build_datamodule,
    build_trainer,
    categories_from_config,
    initialize_from,
    module_from_config,
)
from kmax.config.compose import command_line, register, resolve
from kmax.config.explain import run_or_explain
from kmax.strategy.batch_plan import batch_plan
from kmax.strategy.hardware import tune_model

register()


def train(config: Any) -> float:
    """Fit, validate the best checkpoint, and return the metric that a sweep optimises (`config.metric`).

    A run whose folder holds checkpoints goes on from the newest one (`config.resume`).
    """
    STOP_SIGNALS.listen()
    resolved = resolve(config)
    resume = checkpoint_to_resume(resolved)
    seed_everything(resolved["seed"], workers=True, verbose=False)
    datamodule = build_datamodule(resolved)
    fresh, weights = resume is None, resolved["init_from"]
    module = module_from_config(resolved, categories_from_config(resolved), pretrained=fresh and weights is None)
    if fresh and weights:
        renewed = initialize_from(module, weights)
        if renewed:
            rank_zero_only(print)(f"Other classes than in {weights}, initialised anew: {', '.join(renewed)}.")
    tune_model(module.model, resolved["strategy"])
    trainer = build_trainer(resolved)
    if trainer.is_global_zero:
        print(batch_plan(resolved))
        if resume is not None:
            print(f"Going on from {resume}")
    trainer.fit(module, datamodule, ckpt_path=resume, weights_only=True)
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    metrics = trainer.validate(module, datamodule, ckpt_path=best or None, verbose=False, weights_only=True)[0]
    if trainer.is_global_zero:
        print(f"{config.metric} {metrics[config.metric]:.2f} · checkpoint {Path(best) if best else 'none'}")
    return float(metrics[config.metric])


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(config: Any) -> float:
    """The command line: one configuration in, one number out."""
    return run_or_explain(train, config)


if __name__ == "__main__":
    sys.argv = command_line(sys.argv)
    main()

"""Train a k-means mask transformer: `python train.py experiment=coco_resnet50 strategy=ddp_multinode`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kmax.strategy.signals import STOP_SIGNALS

if __name__ == "__main__" and "SLURM_JOB_ID" in os.environ:
    STOP_SIGNALS.listen()  # the imports below take seconds, and a job must not die of being asked to stop meanwhile

import hydra
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from kmax.callbacks import checkpoint_to_resume
from kmax.config.build import build_datamodule, build_module, build_trainer
from kmax.config.checks import plan_of
from kmax.config.compose import command_line, register, run_options
from kmax.config.explain import run_or_explain
from kmax.config.trained import initialize_from
from kmax.options import to_plain
from kmax.strategy.hardware import tune_model

register()


def train(config: DictConfig) -> float:
    """Fit, validate the best checkpoint, and return the metric that a sweep optimizes (`config.metric`).

    A run whose folder holds checkpoints goes on from the newest one (`config.resume`).
    """
    STOP_SIGNALS.listen()
    options = run_options(config)
    folder = options.callbacks.get("resume", {}).get("folder")
    resume = checkpoint_to_resume(options.resume, folder, to_plain(options))
    seed_everything(options.seed, workers=True, verbose=False)
    datamodule = build_datamodule(options)
    fresh, weights = resume is None, options.init_from
    module = build_module(options, pretrained=fresh and weights is None)
    if fresh and weights:
        renewed = initialize_from(module, options, weights)
        if renewed:
            rank_zero_only(print)(f"Other classes than in {weights}, initialized anew: {', '.join(renewed)}.")
    tune_model(module.model, options.strategy)
    trainer = build_trainer(options)
    if trainer.is_global_zero:
        print(plan_of(options.strategy, options.dataset.batch_size))
        if resume is not None:
            print(f"Going on from {resume}")
    trainer.fit(module, datamodule, ckpt_path=resume, weights_only=True)
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    metrics = trainer.validate(module, datamodule, ckpt_path=best or None, verbose=False, weights_only=True)[0]
    if trainer.is_global_zero:
        print(f"{options.metric} {metrics[options.metric]:.2f} · checkpoint {Path(best) if best else 'none'}")
    return float(metrics[options.metric])


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(config: DictConfig) -> float:
    """The command line: one configuration in, one number out."""
    return run_or_explain(train, config)


if __name__ == "__main__":
    sys.argv = command_line(sys.argv, "train", __doc__)
    main()

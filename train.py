"""Train a k-means mask transformer: `python train.py experiment=coco_resnet50 strategy=ddp_multinode`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kmax.strategy.signals import STOP_SIGNALS

if __name__ == "__main__" and "SLURM_JOB_ID" in os.environ:
    STOP_SIGNALS.listen()  # before the imports below, which take seconds: a signal meanwhile must not kill the job

import hydra
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from kmax.callbacks import BestCheckpoint, checkpoint_to_resume
from kmax.config.build import build_datamodule, build_module, build_trainer
from kmax.config.checks import plan_of
from kmax.config.compose import chosen, command_line, in_sweep, register, run_options
from kmax.config.explain import run_or_explain
from kmax.config.finetune import plan_text
from kmax.config.memory import explained_memory
from kmax.config.story import end_lines, plan_line
from kmax.config.trained import initialize_from
from kmax.data.datamodule import PanopticDataModule
from kmax.module import KMaXModule
from kmax.options import to_plain
from kmax.strategy.hardware import tune_model

register()


def train(config: DictConfig) -> float:
    """Fit, and return the metric that a sweep optimizes (`config.metric`), of the best checkpoint.

    A run whose folder has checkpoints continues from the newest one (`config.resume`).
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
    say = rank_zero_only(print)
    plan, every = plan_of(options.strategy, options.dataset.batch_size), options.trainer.val_every_steps
    parameters = sum(parameter.numel() for parameter in module.model.parameters())
    say(plan_line(plan, trainer.max_steps, min(every, trainer.max_steps), parameters), flush=True)
    if chosen("experiment") == "finetune":
        say(plan_text(options), flush=True)
    if resume is not None:
        say(f"Going on from {resume}", flush=True)
    with explained_memory(options):
        trainer.fit(module, datamodule, ckpt_path=resume, weights_only=True)
    metrics, step = best_metrics(trainer, module, datamodule)
    if folder is not None:
        lines = end_lines(Path(folder).parent, options.metric, metrics, step, following=not in_sweep())
        say(*lines, sep="\n", flush=True)
    return metrics[options.metric]


def best_metrics(
    trainer: Trainer, module: KMaXModule, datamodule: PanopticDataModule
) -> tuple[dict[str, float], int | None]:
    """The metrics of the best weights, and their step; without `BestCheckpoint`, or if an older version did not store
    them, the current weights are validated."""
    best = trainer.checkpoint_callback
    if isinstance(best, BestCheckpoint) and best.best_metrics:
        return best.best_metrics, best.best_step
    path = str(getattr(best, "best_model_path", "")) or None
    trainer.loggers = []  # loggers record the steps of training only
    found = trainer.validate(module, datamodule, ckpt_path=path, verbose=False, weights_only=True)[0]
    return {name: float(value) for name, value in found.items()}, None


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(config: DictConfig) -> float:
    """The command line: one configuration in, one number out."""
    return run_or_explain(train, config)


if __name__ == "__main__":
    sys.argv = command_line(sys.argv, "train", __doc__)
    main()

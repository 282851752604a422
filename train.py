"""Train a k-means mask transformer: `python train.py experiment=coco_resnet50 strategy=ddp_multinode`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities import rank_zero_only

from kmax.batch_plan import batch_plan
from kmax.build import categories_from_config, initialize_from, module_from_config
from kmax.config import build_datamodule, build_trainer, command_line, register, resolve, run_or_explain

register()


def train(config: Any) -> float:
    """Fit, validate the best checkpoint, and return the metric that a sweep optimises (`config.metric`)."""
    resolved = resolve(config)
    seed_everything(resolved["seed"], workers=True, verbose=False)
    datamodule = build_datamodule(resolved)
    module = module_from_config(resolved, categories_from_config(resolved), pretrained=resolved["init_from"] is None)
    if resolved["init_from"]:
        fresh = initialize_from(module, resolved["init_from"])
        if fresh:
            rank_zero_only(print)(
                f"Other classes than in {resolved['init_from']}, initialised anew: {', '.join(fresh)}."
            )
    trainer = build_trainer(resolved)
    if trainer.is_global_zero:
        print(batch_plan(resolved))
    trainer.fit(module, datamodule, ckpt_path=resolved["resume"], weights_only=True)
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

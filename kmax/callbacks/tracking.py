"""What loggers get besides numbers: the configuration, the code version, a table per class, and checkpoints."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

import kmax
from kmax.files import Json
from kmax.metrics import Report


def code_version() -> Json:
    """`version` of the package, `commit` and whether it is `dirty`; the last two are None outside a git checkout."""
    package = Path(kmax.__file__).parent
    version: Json = {"version": kmax.__version__, "commit": None, "dirty": None}
    # An installed package may be inside another checkout, whose commit says nothing about the package.
    if _git(package, "ls-files", "__init__.py"):
        version["commit"] = _git(package, "rev-parse", "HEAD")
        version["dirty"] = bool(_git(package, "status", "--porcelain", "--untracked-files=no"))
    return version


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


class Tracking(Callback):
    """Hand configuration and code version to every logger, and panoptic quality per class to wandb.

    Args:
        artifacts: also upload the best and the last checkpoint to wandb when training ends (offline: keep them for
            `wandb sync`).
    """

    def __init__(self, artifacts: bool = False) -> None:
        self.artifacts = artifacts

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            config = pl_module.config
            assert isinstance(config, dict), "KMaXModule carries its configuration"
            for logger in trainer.loggers:
                logger.log_hyperparams({**config, "code": code_version()})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        result: object = pl_module.result
        if trainer.is_global_zero and isinstance(result, Report) and not trainer.sanity_checking:
            columns = result.columns()
            rows = [[row["name"], *(row.get(column) for column in columns)] for row in result.rows()]
            for logger in _wandb(trainer):
                logger.log_table("val/per_class", ["class", *columns], rows)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not (self.artifacts and trainer.is_global_zero):
            return
        import wandb  # here, so that runs without it start sooner

        best = Path(getattr(trainer.checkpoint_callback, "best_model_path", ""))
        for logger in _wandb(trainer):
            for alias, file in (("best", best), ("last", best.parent / "last.ckpt")):
                if file.is_file():
                    artifact = wandb.Artifact(f"{logger.experiment.id}-{alias}", type="model")
                    artifact.add_file(str(file), name=file.name)
                    logger.experiment.log_artifact(artifact, aliases=[alias])


def _wandb(trainer: Trainer) -> list[WandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]

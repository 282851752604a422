"""The lines that a run prints at its beginning and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kmax.config.folder import shown
from kmax.console import command, joined, override, percent
from kmax.strategy.batch_plan import BatchPlan

_LEFT = {
    "best": "checkpoints/best.ckpt",
    "last": "checkpoints/last.ckpt",
    "numbers": "metrics.csv",
    "pictures": "panels",
    "log": "train.log",
}


def plan_line(plan: BatchPlan, steps: int, every: int, parameters: int) -> str:
    """The line with length, batches, validation interval and size of the model."""
    return joined(
        f"plan · {steps} steps", str(plan), f"validated every {every} steps", f"{parameters / 1e6:.1f} M parameters"
    )


def end_lines(folder: Path, metric: str, metrics: Mapping[str, float], step: int | None, following: bool) -> list[str]:
    """The result, the files, and the commands that usually follow.

    Args:
        folder: of the run.
        metrics, step: the metrics of the best weights, and their step.
        following: name the commands.
    """
    lines = [f"{metric} {percent(metrics.get(metric))}{'' if step is None else f' at step {step}'}"]
    there = {name: folder / file for name, file in _LEFT.items() if (folder / file).exists()}
    lines += [f"  {name:<8} {shown(path)}" for name, path in there.items()]
    best = there.get("best", there.get("last"))
    if following and best is not None:
        checkpoint = override("ckpt", shown(best))
        lines += [
            "next",
            f"  {command(_program('evaluate.py'), checkpoint)}",
            f"  {command(_program('scripts/predict.py'), checkpoint, 'input=PHOTOS')}",
            f"  {command(_program('scripts/demo.py'), checkpoint)}",
        ]
    return lines


def _program(file: str) -> str:
    """A script if it can be started from here, otherwise the command that an installation provides."""
    return file if Path(file).is_file() else f"kmax-{Path(file).stem}"

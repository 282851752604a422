"""Early stopping of jobs of a sweep by the median rule."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median

from lightning.pytorch import Callback, LightningModule, Trainer

from kmax.files import Json, replacing
from kmax.results.sweeps import PROGRESS, read_progress


def hopeless(own: Mapping[int, float], others: Iterable[Mapping[int, float]], step: int, min_jobs: int) -> bool:
    """The median rule: whether the best value so far is below the median of the other jobs at this step.

    Args:
        own, others: step → value, the higher the better.
        min_jobs: how many others must have come this far before any is judged.
    """
    rivals = [values[step] for values in others if step in values]
    best = max((v for s, v in own.items() if s <= step and not math.isnan(v)), default=-math.inf)
    return len(rivals) >= min_jobs and best < median(rivals)


class MedianPruning(Callback):
    """End a job of a sweep early if its metric stays below the median of the other jobs at the same step.

    Jobs share their values through a file `progress.json` in their folders, siblings below the folder of the sweep, so
    it works with every launcher and sweeper. Jobs that run at the same time count too, and so do pruned ones, for the
    steps that they have seen. The sweeper gets the best value that the job had reached.

    Args:
        folder: of this job.
        monitor: a metric of validation, the higher the better.
        min_jobs: how many other jobs must have come as far before one is judged.
        warmup_steps: no job ends before this optimizer step.
    """

    def __init__(self, folder: str | Path, monitor: str, min_jobs: int = 4, warmup_steps: int = 0) -> None:
        self.file = Path(folder) / PROGRESS
        self.monitor, self.min_jobs, self.warmup_steps = monitor, min_jobs, warmup_steps

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(k for k in trainer.callback_metrics if k.startswith("val/")))
            raise ValueError(f"The metric of pruning, {self.monitor}, is not logged in validation; logged: {known}.")
        step, value = trainer.global_step, float(trainer.callback_metrics[self.monitor])
        stop = trainer.is_global_zero and self._report(step, value)
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True
            if trainer.is_global_zero:
                print(f"Pruned at step {step}: {self.monitor} {value:.2f} is below the median of the other jobs.")

    def _report(self, step: int, value: float) -> bool:
        """Report the value to the other jobs, and return whether this job is to end."""
        # Values that an interrupted run reported for later steps are replaced.
        own = {s: v for s, v in read_progress(self.file)[0].items() if s < step} | {step: value}
        others = (read_progress(f)[0] for f in self.file.parent.parent.glob(f"*/{PROGRESS}") if f != self.file)
        stop = step >= self.warmup_steps and hopeless(own, others, step, self.min_jobs)
        progress: Json = {"metric": self.monitor, "values": own, "pruned": step if stop else None}
        with replacing(self.file) as path:
            path.write_text(json.dumps(progress))
        return stop

"""Loggers that never block a run with a question, and that continue where an interrupted run stopped."""

from __future__ import annotations

import csv
import itertools
import os
import secrets
import shutil
import warnings
from collections.abc import Iterable
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from kmax.files import Json
from kmax.options import OptionError

MODES = ("auto", "online", "offline")
ID_FILE = "wandb_id.txt"


def _logged_in() -> bool:
    """Whether there is a key of Weights & Biases where its client looks for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (FileNotFoundError, NetrcParseError):
        return False


def run_id_in(folder: Path) -> str:
    """The id of the run in `folder`: drawn once, and the same for all ranks and all starts of the job."""
    file = folder / ID_FILE
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / f".{ID_FILE}.{secrets.token_hex(4)}"
        own.write_text(secrets.token_hex(4))
        try:
            os.link(own, file)  # the first rank wins, and no rank reads an incomplete file
        except FileExistsError:
            pass
        finally:
            own.unlink()
    return file.read_text()


def wandb_logger(save_dir: str, mode: str = "auto", group: str | None = None, **options: Any) -> WandbLogger:
    """A WandbLogger that never asks for a login: `auto` is online for a logged-in user and offline otherwise.

    One run per `save_dir`: a requeued job continues the run that it began.

    Args:
        group: of jobs that belong together, e.g. those of a sweep.
        options: of WandbLogger.

    Raises:
        OptionError: an unknown mode.
    """
    if mode not in MODES:
        raise OptionError(f"mode={mode} is unknown: choose one of {', '.join(MODES)}.")
    offline = mode == "offline" or (mode == "auto" and not _logged_in())
    identity = run_id_in(Path(save_dir))
    import wandb  # here, so that runs without it start sooner

    if wandb.run is not None and wandb.run.id != identity:
        wandb.finish()  # of an earlier job of a sweep in this process, with a run of its own
    return WandbLogger(save_dir=save_dir, offline=offline, id=identity, resume="allow", group=group, **options)


def tensorboard_logger(**options: Any) -> TensorBoardLogger:
    """A TensorBoardLogger; a new start of a job adds another event file, which TensorBoard shows as one curve.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    try:
        return TensorBoardLogger(**options)
    except ModuleNotFoundError as error:
        raise ValueError("logger=tensorboard needs a package that is not here: pip install tensorboard.") from error


class ContinuedCSVLogger(CSVLogger):
    """`metrics.csv` of a run over all its starts; Lightning's own logger would overwrite the file.

    Rows at or after the first step that is logged again are dropped: the interrupted run was ahead of its checkpoint,
    or this run starts from the beginning.
    """

    def __init__(self, save_dir: str, **options: Any) -> None:
        super().__init__(save_dir, **options)
        self._earlier = earlier_rows(Path(self.log_dir) / "metrics.csv")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
            return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Json, step: int | None = None) -> None:
        if self._earlier:
            kept = [row for row in self._earlier if step is not None and float(row["step"]) < step]
            self._earlier = []
            self.experiment.metrics.extend(kept)
            self.experiment.save()
        super().log_metrics(metrics, step)


def earlier_rows(file: Path) -> list[Json]:
    """The rows that an earlier start has logged, as text. A file with anything else in it, such as an incomplete row,
    is kept as `metrics-odd-1.csv`, and its valid rows are taken over."""
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8", errors="replace")
    rows = list(csv.DictReader(line.replace("\0", "") for line in text.splitlines(keepends=True)))
    good = [row for row in rows if _is_row(row)]
    if len(good) < len(rows) or (text.strip() and not rows):
        number = next(n for n in itertools.count(1) if not file.with_name(f"metrics-odd-{n}.csv").exists())
        copy = file.with_name(f"metrics-odd-{number}.csv")
        shutil.copyfile(file, copy)
        rank_zero_warn(
            f"{file} has rows that are none of a run's: it is kept as {copy.name}; what can be read is continued."
        )
    return good


def _is_row(row: dict[str, str]) -> bool:
    step = str(row.get("step") or "")
    whole = None not in row and None not in row.values()  # neither more nor fewer cells than columns
    return whole and step.replace(".0", "").isdecimal()


def close_loggers(loggers: Iterable[Logger], exit_code: int) -> None:
    """Write out what the loggers still hold before the process ends, and tell wandb that the run is preempted."""
    for logger in loggers:
        logger.save()
        if isinstance(logger, WandbLogger):
            logger.experiment.mark_preempting()
            logger.experiment.finish(exit_code)

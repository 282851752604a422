"""Silence messages of libraries that do not matter to a user of kmax."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from kmax.console import plain

_NOISE = (
    r".*treespec, LeafSpec",  # between Lightning and torch
    r"The number of training batches .* is smaller than the logging interval",
    r"The '.*_dataloader' does not have many workers",
    r"Checkpoint directory .* exists and is not empty",  # a run that goes on
    r"Experiment logs directory .* exists",
    r"The dirpath has changed from",
    r"`ModelCheckpoint.*` could not find the monitored key",
)
_OUTSIDE_SLURM = r"The `srun` command is available on your system but is not used"
_LOGGERS = ("lightning.pytorch", "lightning.fabric")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Inside the block, Lightning's notes and advertisements are silent, and warnings are one line each."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings():
        for message in (*_NOISE, *(() if "SLURM_JOB_ID" in os.environ else (_OUTSIDE_SLURM,))):
            warnings.filterwarnings("ignore", message)
        warnings.showwarning = _show
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {plain(' '.join(str(message).split()))}", file=file or sys.stderr, flush=True)

"""A user's mistake ends in one sentence, not in a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kmax.config.compose import in_sweep, strategy_options
from kmax.strategy.slurm import check_multirun

C = TypeVar("C")
T = TypeVar("T")


class JobError(Exception):
    """A job of a sweep that failed for a reason that its message gives; the other jobs go on."""


def run_or_explain(function: Callable[[C], T], config: C) -> T:
    """Call `function(config)`; a user's mistake ends in its one sentence and exit status 1, without a traceback.

    `HYDRA_FULL_ERROR=1` shows the traceback all the same. In a sweep the mistake of one job is a `JobError`, which
    Hydra collects; a sweep that no launcher can run is refused as a whole.
    """
    sweep = in_sweep()
    try:
        if sweep and isinstance(config, DictConfig):
            check_multirun(strategy_options(config), HydraConfig.get().launcher["_target_"].rpartition(".")[2])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    try:
        return function(config)
    except (ValueError, FileNotFoundError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sentence = sentence_of(error)
        print(f"error: {sentence}\n(HYDRA_FULL_ERROR=1 shows where it came from)", file=sys.stderr)
        if sweep:
            raise JobError(sentence) from None
        sys.exit(1)


def sentence_of(error: Exception) -> str:
    """What an error says; one from a DataLoader's worker carries that worker's traceback, which its last line ends."""
    text = str(error).strip()
    sentence = text.splitlines()[-1] if text else type(error).__name__
    for prefix in ("ValueError: ", "FileNotFoundError: "):
        sentence = sentence.removeprefix(prefix)
    return sentence

"""A user's mistake ends in one sentence, not in a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kmax.config.compose import in_sweep, strategy_options
from kmax.config.folder import run_folder
from kmax.config.quiet import quiet_libraries
from kmax.config.sentences import sentence_of
from kmax.strategy.slurm import check_multirun

C = TypeVar("C")
T = TypeVar("T")


INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


class JobError(Exception):
    """A job of a sweep that failed for a reason that its message gives; the other jobs continue."""


def _mistakes() -> tuple[type[Exception], ...]:
    """The errors that stand for a user's mistake: ours, and Lightning's where it has been imported."""
    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    return (ValueError, FileNotFoundError, *([lightning.MisconfigurationException] if lightning else []))


def run_or_explain(function: Callable[[C], T], config: C) -> T:
    """Call `function(config)`; a user's mistake ends in one sentence and exit status 1, without a traceback.

    `HYDRA_FULL_ERROR=1` shows the traceback. In a sweep the mistake of one job is a `JobError`, which
    Hydra collects; a sweep that no launcher can run is refused as a whole.
    """
    sweep = in_sweep()
    try:
        if sweep and isinstance(config, DictConfig):
            check_multirun(strategy_options(config), HydraConfig.get().launcher["_target_"].rpartition(".")[2])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    with run_folder(), quiet_libraries():
        try:
            return function(config)
        except _mistakes() as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            sentence = sentence_of(error)
            print(f"error: {sentence}\n(HYDRA_FULL_ERROR=1 shows where it came from)", file=sys.stderr)
            if sweep:
                raise JobError(sentence) from None
            sys.exit(1)
        except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns the first into the second
            if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
                print("Interrupted.", file=sys.stderr)
                sys.exit(INTERRUPTED)
            raise

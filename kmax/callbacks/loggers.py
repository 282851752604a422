"""Loggers with defaults that never stop a run to ask a question."""

from __future__ import annotations

import os
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger

MODES = ("auto", "online", "offline")


def _logged_in() -> bool:
    """Whether a key of Weights & Biases lies where its client looks for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (FileNotFoundError, NetrcParseError):
        return False


def wandb_logger(mode: str = "auto", log_model: Literal["all"] | bool = False, **options: Any) -> WandbLogger:
    """A WandbLogger that never asks for a login: `auto` is online for a logged-in user and offline otherwise.

    Raises:
        ValueError: an unknown mode, or uploading models from an offline run.
    """
    if mode not in MODES:
        raise ValueError(f"logger.wandb.mode={mode} is unknown: choose one of {', '.join(MODES)}.")
    offline = mode == "offline" or (mode == "auto" and not _logged_in())
    if offline and log_model:
        raise ValueError(
            "An offline run of wandb cannot upload models: set logger.wandb.log_model=false or mode=online."
        )
    Path(options.get("save_dir", ".")).mkdir(parents=True, exist_ok=True)
    return WandbLogger(offline=offline, log_model=log_model, **options)

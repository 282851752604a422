"""The configuration that a checkpoint carries: written as plain containers, read back as options of today."""

from __future__ import annotations

from pathlib import Path

from kmax.checkpoint.own import CONFIG_KEY, CheckpointDict
from kmax.config.options import TrainOptions
from kmax.options import OptionError, Plain, build_options


def stored_config(checkpoint: CheckpointDict) -> Plain:
    """The configuration of a checkpoint in today's form: version 0.1 kept `inference` inside `dataset`."""
    config = dict(checkpoint[CONFIG_KEY])
    dataset = dict(config.get("dataset", {}))
    if "inference" in dataset:
        config["inference"] = dataset.pop("inference")
        config["dataset"] = dataset
    return config


def stored_options(checkpoint: CheckpointDict, path: str | Path) -> TrainOptions:
    """The options that a checkpoint was trained with.

    Raises:
        ValueError: one that this version does not know.
    """
    try:
        return build_options(TrainOptions, stored_config(checkpoint))
    except OptionError as error:
        raise ValueError(f"The configuration in {path} does not fit this version of kmax: {error}") from error

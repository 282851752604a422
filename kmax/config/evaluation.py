"""The options of an evaluation: those of the checkpoint, with the command line's on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kmax.config.options import EvaluateOptions, TrainOptions
from kmax.options import OptionError, Plain, T, build_options, to_plain
from kmax.strategy.batch_plan import num_devices

TRAINED_AS = {"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}
"""Lightning's names of the precisions of prediction."""


def evaluation_options(trained: TrainOptions, options: EvaluateOptions) -> TrainOptions:
    """The options that a checkpoint was trained with, with those of the evaluation on top: hardware, batch size,
    metrics, and all of `dataset.…` and `inference.…`. With another `dataset.root`, the paths below it change as well.

    Raises:
        ValueError: a key or value that the checkpoint's configuration does not take.
    """
    if "inference" in options.dataset:
        raise ValueError("Thresholds and test-time options have their own section: write inference.… instead.")
    moved = _moved(to_plain(trained.dataset), options.dataset.get("root"))
    precision = TRAINED_AS[options.precision] if options.precision else options.strategy.precision
    strategy = replace(
        options.strategy,
        precision=precision,
        val_batch_size_per_device=options.batch_size,
        batch_size_per_device=1,
        batch_rule="keep",
    )
    # Nothing is trained: one image per device, so that any number of devices will do.
    devices = num_devices(strategy.devices, strategy.accelerator) * strategy.num_nodes
    dataset = laid_over(trained.dataset, {**_merged(moved, options.dataset), "batch_size": devices}, "dataset")
    return replace(
        trained,
        dataset=dataset,
        inference=laid_over(trained.inference, options.inference, "inference"),
        strategy=strategy,
        trainer=replace(trained.trainer, val_metrics=list(options.metrics), limit_val_batches=None),
        metric=f"val/{options.metrics[0]}",
    )


def laid_over(options: T, changes: Plain, name: str) -> T:
    """Options with some of them changed; null leaves an option unchanged.

    Raises:
        OptionError: an unknown key, or a value that it does not take.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return build_options(type(options), {**to_plain(options), **given}, f"{name}.")
    except OptionError as error:
        raise OptionError(str(error)) from None


def _merged(base: Plain, over: Plain) -> Plain:
    """Nested mappings, key by key."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _moved(section: Plain, root: str | None) -> Plain:
    """A dataset section whose paths below its root are moved below `root`."""
    old = str(section["root"])

    def move(value: object) -> object:
        if isinstance(value, dict):
            return {key: move(item) for key, item in value.items()}
        if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
            return f"{root}{value[len(old) :]}"
        return value

    return section if root is None else {key: move(item) for key, item in section.items()}

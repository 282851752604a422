"""Checks of the options against each other and the machine, before anything runs; messages name the keys."""

from __future__ import annotations

from dataclasses import replace

from kmax.config.options import TrainOptions
from kmax.model.options import check_network
from kmax.options import OptionError
from kmax.strategy.batch_plan import BatchError, BatchPlan, batch_plan
from kmax.strategy.options import StrategyOptions
from kmax.strategy.slurm import SlurmResources, slurm_resources


def plan_of(strategy: StrategyOptions, batch_size: int) -> BatchPlan:
    """How a batch is spread over the devices.

    Raises:
        ValueError: it cannot be; the message names the keys to change.
    """
    if batch_size < 1:
        raise ValueError(f"dataset.batch_size={batch_size} must be at least 1.")
    try:
        return batch_plan(strategy, batch_size)
    except BatchError as error:
        raise ValueError(
            f"{error}: set strategy.batch_size_per_device to a divisor, strategy.batch_rule=scale to follow the "
            "devices, or change dataset.batch_size."
        ) from None


def resources_of(strategy: StrategyOptions) -> SlurmResources:
    """What SLURM is asked for.

    Raises:
        ValueError: the number of devices depends on the machine; the message names the key.
    """
    try:
        return slurm_resources(strategy)
    except OptionError as error:
        raise ValueError(f"strategy.{error}") from None


def check_run(options: TrainOptions) -> TrainOptions:
    """The options of a run, the batch rule applied, after all checks of one section against another.

    Raises:
        ValueError: two of them contradict each other; the message names both.
    """
    check_architecture(options)
    check_crop(options)
    check_clipping(options)
    return follow_batch(options)


def check_architecture(options: TrainOptions) -> None:
    """Check that network, backbone and losses belong together.

    Raises:
        ValueError: they do not.
    """
    try:
        check_network(options.backbone, options.model)
    except OptionError as error:
        raise ValueError(f"model: {error}") from None
    if options.loss.instance_loss == "prototypes" and options.model.architecture != "max_deeplab":
        raise ValueError(
            "loss.instance_loss=prototypes is MaX-DeepLab's, whose one prediction is at the targets' stride: set it to "
            "pixels, or choose model=max_deeplab_s or model=max_deeplab_l."
        )


def follow_batch(options: TrainOptions) -> TrainOptions:
    """The options with the batch of the plan, and with the rate, steps and warm-up for that batch.

    The rate grows linearly with the batch and everything counted in steps shrinks by the same factor, so that a run
    sees as many images as its experiment says. Applying it twice changes nothing.
    """
    plan = plan_of(options.strategy, options.dataset.batch_size)
    if plan.factor == 1.0:
        return options

    def fewer(steps: int) -> int:
        return max(1, round(steps / plan.factor))

    optimizer = replace(
        options.optimizer,
        lr=options.optimizer.lr * plan.factor,
        steps=fewer(options.optimizer.steps),
        warmup_steps=fewer(options.optimizer.warmup_steps),
    )
    trainer = replace(options.trainer, val_every_steps=fewer(options.trainer.val_every_steps))
    dataset = replace(options.dataset, batch_size=plan.effective_batch)
    return replace(options, dataset=dataset, optimizer=optimizer, trainer=trainer)


def check_crop(options: TrainOptions) -> None:
    """A crop must hold more pixels than the losses draw, and batch norm more than one value."""
    dataset, samples = options.dataset, options.loss.drawn
    height, width = dataset.size
    cells = -(-height // dataset.target_stride) * -(-width // dataset.target_stride)
    if samples >= cells:
        raise ValueError(
            f"A crop of {height}×{width} has {cells} pixels at stride {dataset.target_stride}, so none has more than "
            f"loss.samples={samples} labeled ones: lower loss.samples."
        )
    plan = plan_of(options.strategy, dataset.batch_size)
    if max(height, width) <= 32 and plan.batch_size_per_device == 1:
        two = 2 * plan.total_devices  # the smallest batch with two images on each device
        batch = "" if dataset.batch_size % two == 0 else f"dataset.batch_size={two} with "
        raise ValueError(
            f"dataset.size=[{height},{width}] leaves one cell at stride 32, and batch norm needs two values: choose a "
            f"larger size, e.g. [65,65], or {batch}strategy.batch_size_per_device=2."
        )


def check_clipping(options: TrainOptions) -> None:
    """A fused optimizer undoes the scaling of half-precision gradients inside the step, too late for clipping."""
    optimizer, precision = options.optimizer, options.strategy.precision
    if optimizer.clip_norm and optimizer.fused and precision.endswith("-mixed"):
        raise ValueError(
            "optimizer.fused=true undoes the scaling of half-precision gradients inside the step, too late for "
            "optimizer.clip_norm: set optimizer.fused=false, or clip_norm=null."
        )

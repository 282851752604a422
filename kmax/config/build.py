"""From options to objects: model, module, data and trainer."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.strategies import DDPStrategy, Strategy
from omegaconf import OmegaConf
from torch.nn.parallel import DistributedDataParallel

from kmax.callbacks import AtomicCheckpointIO, FitThreads, MovingAverage
from kmax.categories import Categories, load_categories
from kmax.config.checks import plan_of
from kmax.config.compose import compose_config
from kmax.config.options import TrainOptions
from kmax.config.precision import precision_plugins
from kmax.config.sentences import with_keys
from kmax.data.datamodule import PanopticDataModule
from kmax.data.datasets import PanopticDataset
from kmax.losses import Criterion
from kmax.metrics import MetricSuite
from kmax.model import Network, build_network
from kmax.model.options import BackboneOptions, ModelOptions
from kmax.module import KMaXModule
from kmax.options import OptionError, Plain, build_options, to_plain
from kmax.strategy.hardware import check_hardware
from kmax.strategy.options import StrategyOptions


def model_from_options(backbone: BackboneOptions, model: ModelOptions, num_classes: int) -> Network:
    """The network with `num_classes` classes.

    Raises:
        FileNotFoundError, ValueError: options that do not fit each other, or backbone weights that are not available.
    """
    try:
        return build_network(backbone, model, num_classes)
    except OptionError as error:
        raise ValueError(f"model: {error}") from error


def build_model(experiment: str | None = None, *overrides: str) -> Network:
    """The model of an experiment, randomly initialized, without any download.

    Args:
        experiment: the name of a file in conf/experiment; None for the defaults of `train.py`.
        overrides: options as on the command line, e.g. `"model.num_queries=64"`.
    """
    config = compose_config(experiment, *overrides)
    plain: Any = OmegaConf.to_container(config, resolve=False)
    backbone = build_options(BackboneOptions, {**plain["backbone"], "pretrained": False}, "backbone.")
    model = build_options(ModelOptions, plain["model"], "model.")
    return model_from_options(backbone, model, load_categories(config.dataset.categories).num_classes)


def build_module(options: TrainOptions, pretrained: bool = True) -> KMaXModule:
    """The LightningModule of a run; `pretrained=False` leaves the backbone's weights random, to be loaded later."""
    categories = load_categories(options.dataset.categories)
    backbone = options.backbone if pretrained else replace(options.backbone, pretrained=False)
    return KMaXModule(
        model_from_options(backbone, options.model, categories.num_classes),
        categories,
        options.inference,
        Criterion(categories.num_classes, options.loss, categories.is_thing),
        options.optimizer,
        build_metrics(options, categories),
        to_plain(options),
    )


def build_metrics(options: TrainOptions, categories: Categories) -> MetricSuite:
    """What validation measures."""
    dataset = options.dataset
    return MetricSuite(options.trainer.val_metrics, categories, dataset.mask_ap, dataset.boundary_dilation)


def build_datamodule(options: TrainOptions, categories: Categories | None = None) -> PanopticDataModule:
    """The data of a run: datasets from their `_target_`, with the classes of the dataset or those given.

    Raises:
        FileNotFoundError, ValueError: files that are missing or disagree.
    """
    categories = categories or load_categories(options.dataset.categories)
    return PanopticDataModule(
        train=partial(_dataset, options.dataset.train, categories),
        val=partial(_dataset, options.dataset.val, categories),
        options=options.dataset,
        min_labeled_pixels=options.loss.drawn,
        batch_size=plan_of(options.strategy, options.dataset.batch_size).batch_size_per_device,
        val_batch_size=options.strategy.val_batch_size_per_device,
        num_workers=options.strategy.num_workers,
        seed=options.seed,
    )


def _dataset(target: Plain, categories: Categories) -> PanopticDataset:
    make = instantiate({**target, "_partial_": True}, _convert_="all")
    try:
        dataset: PanopticDataset = make(categories=categories)
    except TypeError as error:
        raise ValueError(f"dataset: {target['_target_']} does not take these options ({error}).") from error
    return dataset


def build_trainer(options: TrainOptions, **changes: Any) -> Trainer:
    """The Lightning trainer of a run; `changes` replace arguments that follow from the options."""
    try:
        check_hardware(options.strategy)
    except OptionError as error:
        raise ValueError(with_keys(f"strategy.{error}")) from None
    strategy, trainer = options.strategy, options.trainer
    accumulate = plan_of(strategy, options.dataset.batch_size).accumulate
    limit = trainer.limit_val_batches
    replaced = precision_plugins(strategy.precision)
    arguments: Plain = {
        "accelerator": strategy.accelerator,
        "devices": strategy.devices,
        "num_nodes": strategy.num_nodes,
        "strategy": _distribution(strategy),
        "precision": None if replaced else strategy.precision,
        "benchmark": not changes.get("deterministic"),  # cuDNN looks for its fastest algorithms: shapes repeat
        "use_distributed_sampler": False,
        "max_steps": options.optimizer.steps,
        "accumulate_grad_batches": accumulate,
        "gradient_clip_val": options.optimizer.clip_norm,
        # A run shorter than the interval is validated at its end.
        "val_check_interval": min(trainer.val_every_steps, options.optimizer.steps) * accumulate,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": trainer.log_every_steps,
        # Lightning takes 1.0 for all batches and 1 for one.
        "limit_val_batches": int(limit) if limit is not None and limit > 1 else limit,
        "num_sanity_val_steps": trainer.num_sanity_val_steps,
        "enable_progress_bar": trainer.enable_progress_bar,
        "enable_model_summary": False,
        "plugins": [AtomicCheckpointIO(), *replaced],
    }
    callbacks = changes.pop("callbacks") if "callbacks" in changes else build_callbacks(options)
    arguments["callbacks"] = [FitThreads(), *callbacks]
    if "logger" not in changes:
        arguments["logger"] = _objects("logger", options.logger) or False
    return Trainer(**{**arguments, **changes})


def _objects(section: str, parts: Plain) -> list[Any]:
    """The objects of a section, by their `_target_`.

    Raises:
        ValueError, FileNotFoundError: what the object refused, with its key in front if that is an option.
    """
    made = []
    for name, part in parts.items():
        try:
            made.append(instantiate(part))
        except InstantiationException as error:
            cause = error.__cause__
            if isinstance(cause, OptionError):
                raise ValueError(f"{section}.{name}.{cause}") from None
            if isinstance(cause, (ValueError, FileNotFoundError)):
                raise cause from None
            raise
    return made


def _distribution(strategy: StrategyOptions) -> str | Strategy:
    """Lightning's strategy. Under DDP gradients are views of its buckets; buffers are broadcast only if ranks could
    differ in them, which they do not with synchronized batch norms."""
    if strategy.strategy != "ddp":
        return strategy.strategy
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # the former name
    buffers: Plain = {name: not strategy.sync_batchnorm}
    return DDPStrategy(gradient_as_bucket_view=True, **buffers)


def build_callbacks(options: TrainOptions) -> list[Callback]:
    """The callbacks of a run, without a progress bar where `trainer.enable_progress_bar` forbids it."""
    callbacks: list[Callback] = _objects("callbacks", options.callbacks)
    if options.optimizer.ema_decay is not None:
        callbacks.append(MovingAverage(options.optimizer.ema_decay))
    wanted = options.trainer.enable_progress_bar
    return [callback for callback in callbacks if wanted or not isinstance(callback, ProgressBar)]

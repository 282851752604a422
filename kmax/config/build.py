"""From a resolved configuration to objects: model, module, data and trainer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.strategies import DDPStrategy, Strategy
from omegaconf import OmegaConf

from kmax.callbacks import AtomicCheckpointIO, MovingAverage
from kmax.categories import Categories, load_categories
from kmax.checkpoint.names import misfit
from kmax.checkpoint.own import CATEGORIES_KEY, CONFIG_KEY, read_checkpoint
from kmax.config.compose import compose_config
from kmax.data.datamodule import PanopticDataModule
from kmax.data.datasets import PanopticDataset
from kmax.data.training import Augmentation
from kmax.inference.options import InferenceOptions
from kmax.losses import Criterion
from kmax.metrics import MetricSuite
from kmax.model import KMaXDeepLab, build_backbone
from kmax.module import KMaXModule
from kmax.strategy.batch_plan import batch_plan
from kmax.strategy.hardware import check_hardware


def model_from_config(config: Mapping[str, Any], num_classes: int, pretrained: bool = True) -> KMaXDeepLab:
    """The model that `config` describes, with `num_classes` classes; `pretrained=False` ignores backbone weights."""
    options = dict(config["backbone"])
    if not pretrained:
        options["pretrained"] = False
    backbone = build_backbone(family=config["model"]["family"], **options)
    return KMaXDeepLab(backbone, num_classes, **config["model"])


def module_from_config(config: Mapping[str, Any], categories: Categories, pretrained: bool = True) -> KMaXModule:
    """The LightningModule of a run: model, criterion, thresholds, optimizer recipe, and the configuration itself."""
    dataset = config["dataset"]
    return KMaXModule(
        model_from_config(config, categories.num_classes, pretrained),
        Criterion(categories.num_classes, **config["loss"]),
        categories,
        optimizer=config["optimizer"],
        thresholds=InferenceOptions(**dataset["inference"]),
        config=config,
        # Checkpoints may be older than these keys.
        metrics=MetricSuite(
            config["trainer"].get("val_metrics", ["pq"]),
            categories,
            dataset.get("mask_ap", "coco"),
            dataset.get("boundary_dilation", 0.02),
        ),
    )


def load_weights(module: torch.nn.Module, state_dict: Mapping[str, Any], source: str | Path) -> None:
    """Strict loading with one clear sentence for what doesn't fit.

    Raises:
        ValueError: names or shapes differ; the message names the first of each kind.
    """
    problem = misfit(module.state_dict(), state_dict)
    if problem:
        raise ValueError(
            f"The weights of {source} do not fit this model: {problem}. "
            "Use the configuration that they were trained with."
        )
    module.load_state_dict(state_dict)


def initialize_from(module: KMaXModule, path: str | Path) -> tuple[str, ...]:
    """Start from the weights of a checkpoint, of a model for the same classes or for others.

    Other classes: the layers whose shape depends on their number keep their fresh initialisation; everything else
    must fit.

    Returns:
        The names of the layers that were not loaded.

    Raises:
        FileNotFoundError, ValueError: as `read_checkpoint` and `load_weights`.
    """
    checkpoint = read_checkpoint(path)
    weights, fresh = dict(checkpoint["state_dict"]), tuple[str, ...]()
    if Categories.from_dict(checkpoint[CATEGORIES_KEY]).names != module.categories.names:
        own = module.state_dict()
        fresh = tuple(name for name in class_dependent(module.config) if name in own and name in weights)
        weights.update({name: own[name] for name in fresh})
    load_weights(module, weights, path)
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in fresh))


def class_dependent(config: Mapping[str, Any]) -> list[str]:
    """Names of the weights of a module whose shape depends on the number of classes: two models that differ in nothing
    else tell."""
    with torch.device("meta"):
        one, other = (model_from_config(config, classes, pretrained=False).state_dict() for classes in (2, 3))
    return [f"model.{name}" for name in one if one[name].shape != other[name].shape]


def module_from_checkpoint(path: str | Path, overrides: Mapping[str, Any] | None = None) -> KMaXModule:
    """The trained module in `path`, in eval mode, built from nothing but the checkpoint.

    Args:
        overrides: top-level sections of the configuration that replace those of the checkpoint.
    """
    checkpoint = read_checkpoint(path)
    config = {**checkpoint[CONFIG_KEY], **(overrides or {})}
    module = module_from_config(config, Categories.from_dict(checkpoint[CATEGORIES_KEY]), pretrained=False)
    load_weights(module, checkpoint["state_dict"], path)
    return module.eval()


def categories_from_config(config: Mapping[str, Any]) -> Categories:
    """The categories that came along with a checkpoint, else those that the dataset section names."""
    carried = config.get(CATEGORIES_KEY)
    return Categories.from_dict(carried) if carried else load_categories(config["dataset"]["categories"])


def build_datamodule(config: dict[str, Any]) -> PanopticDataModule:
    """The data of a run: datasets from their `_target_`, augmentation from the dataset section.

    Raises:
        FileNotFoundError, ValueError: files that are missing or disagree.
    """
    dataset, strategy = config["dataset"], config["strategy"]
    categories = categories_from_config(config)
    return PanopticDataModule(
        train=partial(_dataset, dataset["train"], categories),
        val=partial(_dataset, dataset["val"], categories),
        augmentation=Augmentation(
            size=(dataset["size"][0], dataset["size"][1]),
            scale=(dataset["scale"][0], dataset["scale"][1]),
            flip=dataset["flip"],
            color_jitter=dataset["color_jitter"],
            copy_paste=dataset["copy_paste"],
            target_stride=dataset["target_stride"],
            min_labelled_pixels=config["loss"]["samples"],
        ),
        batch_size=batch_plan(config).batch_size_per_device,
        val_batch_size=strategy["val_batch_size_per_device"],
        num_workers=strategy["num_workers"],
        seed=config["seed"],
    )


def _dataset(options: dict[str, Any], categories: Categories) -> PanopticDataset:
    make = instantiate({**options, "_partial_": True}, _convert_="all")
    try:
        return make(categories=categories)
    except TypeError as error:
        raise ValueError(f"dataset: {options['_target_']} does not take these options ({error}).") from error


def build_trainer(config: dict[str, Any], **options: Any) -> Trainer:
    """The Lightning trainer of a run; `options` go over what the configuration says."""
    check_hardware(config)
    strategy, trainer = config["strategy"], config["trainer"]
    accumulate = batch_plan(config).accumulate
    arguments: dict[str, Any] = {
        "accelerator": strategy["accelerator"],
        "devices": strategy["devices"],
        "num_nodes": strategy["num_nodes"],
        "strategy": _distribution(strategy),
        "precision": strategy["precision"],
        "benchmark": not options.get("deterministic"),  # cuDNN looks for its fastest algorithms: shapes repeat
        "use_distributed_sampler": False,
        "max_steps": config["optimizer"]["steps"],
        "accumulate_grad_batches": accumulate,
        "gradient_clip_val": config["optimizer"].get("clip_norm"),
        # A run that is shorter than the interval is validated at its end.
        "val_check_interval": min(trainer["val_every_steps"], config["optimizer"]["steps"]) * accumulate,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": trainer["log_every_steps"],
        "limit_val_batches": trainer["limit_val_batches"],
        "num_sanity_val_steps": trainer["num_sanity_val_steps"],
        "enable_progress_bar": trainer["enable_progress_bar"],
        "enable_model_summary": False,
        "callbacks": _callbacks(config),
        "plugins": [AtomicCheckpointIO()],
        "logger": [instantiate(logger) for logger in config["logger"].values()] or False,
    }
    return Trainer(**{**arguments, **options})


def _distribution(strategy: Mapping[str, Any]) -> str | Strategy:
    """Lightning's strategy. Under DDP gradients lie in its buckets; buffers are sent along only where ranks would
    differ in them, which synchronized batch norms do not."""
    if strategy["strategy"] != "ddp":
        return str(strategy["strategy"])
    return DDPStrategy(broadcast_buffers=not strategy["sync_batchnorm"], gradient_as_bucket_view=True)


def _callbacks(config: dict[str, Any]) -> list[Callback]:
    """The callbacks of a run, without a progress bar where `trainer.enable_progress_bar` forbids it."""
    callbacks = [instantiate(callback) for callback in config["callbacks"].values()]
    decay = config["optimizer"].get("ema_decay")
    if decay is not None:
        callbacks.append(MovingAverage(decay))
    wanted = config["trainer"]["enable_progress_bar"]
    return [callback for callback in callbacks if wanted or not isinstance(callback, ProgressBar)]


def build_model(experiment: str | None = None, *overrides: str) -> KMaXDeepLab:
    """The model of an experiment, randomly initialised, without any download.

    Args:
        experiment: the name of a file in conf/experiment; None for the defaults of `train.py`.
        overrides: as on the command line, e.g. `"model.num_queries=64"`.
    """
    config = compose_config(experiment, *overrides)
    sections = {"backbone": dict(config.backbone), "model": OmegaConf.to_container(config.model, resolve=True)}
    return model_from_config(sections, load_categories(config.dataset.categories).num_classes, pretrained=False)

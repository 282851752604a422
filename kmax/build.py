"""From plain, resolved configuration to model, criterion and module; knows neither Hydra nor the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kmax.categories import Categories, load_categories
from kmax.checkpoint.names import misfit
from kmax.checkpoint.own import CATEGORIES_KEY, CONFIG_KEY, read_checkpoint
from kmax.inference import Inference
from kmax.losses import Criterion
from kmax.metrics import MetricSuite
from kmax.model import KMaXDeepLab, build_backbone
from kmax.module import KMaXModule


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
        thresholds=Inference(**dataset["inference"]),
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

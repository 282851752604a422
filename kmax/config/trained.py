"""Trained models out of checkpoints, and weights into new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kmax.categories import Categories
from kmax.checkpoint.names import describe_mismatch
from kmax.checkpoint.own import CATEGORIES_KEY, read_checkpoint
from kmax.config.build import model_from_options
from kmax.config.options import TrainOptions
from kmax.config.pretrained import checkpoint_path
from kmax.config.stored import stored_options
from kmax.inference.options import InferenceOptions
from kmax.model import Network
from kmax.module import KMaXModule

PREFIX = "model."
"""Prefix of the network's weights in the state of a KMaXModule."""


@dataclass(frozen=True)
class TrainedModel:
    """A network with all that its results depend on: classes, thresholds, and the options it was trained with."""

    model: Network
    categories: Categories
    options: TrainOptions

    @property
    def inference(self) -> InferenceOptions:
        """Thresholds and test-time options."""
        return self.options.inference


def load_trained(path: str | Path) -> TrainedModel:
    """The trained model in `path`, or of that name in the model zoo, in eval mode on the CPU, built from the
    checkpoint alone.

    Raises:
        FileNotFoundError, ValueError: no such file; damaged, foreign, or of a configuration that is not known; weights
            that cannot be downloaded.
    """
    checkpoint = read_checkpoint(checkpoint_path(path))
    options = stored_options(checkpoint, path)
    categories = Categories.from_dict(checkpoint[CATEGORIES_KEY])
    backbone = replace(options.backbone, pretrained=False)
    model = model_from_options(backbone, options.model, categories.num_classes)
    weights = {name.removeprefix(PREFIX): value for name, value in checkpoint["state_dict"].items()}
    load_weights(model, weights, path)
    return TrainedModel(model.eval(), categories, options)


def load_weights(module: torch.nn.Module, state_dict: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """Load weights strictly; if they do not fit, the error is one sentence.

    Raises:
        ValueError: names or shapes differ; the message names the first of each kind.
    """
    problem = describe_mismatch(module.state_dict(), state_dict)
    if problem:
        raise ValueError(
            f"The weights of {source} do not fit this model: {problem}. "
            "Use the configuration that they were trained with."
        )
    module.load_state_dict(state_dict)


def initialize_from(module: KMaXModule, options: TrainOptions, path: str | Path) -> tuple[str, ...]:
    """Start from the weights of a checkpoint, of a model for the same classes or for others.

    Other classes: the layers whose shape depends on their number keep their fresh initialization; everything else
    must fit.

    Args:
        options: those that `module` was built from.
        path: of the checkpoint, or its name in the model zoo.

    Returns:
        The names of the layers that were not loaded.

    Raises:
        FileNotFoundError, ValueError: as `read_checkpoint` and `load_weights`.
    """
    checkpoint = read_checkpoint(checkpoint_path(path))
    weights, fresh = dict(checkpoint["state_dict"]), tuple[str, ...]()
    if Categories.from_dict(checkpoint[CATEGORIES_KEY]).names != module.categories.names:
        own = module.state_dict()
        fresh = tuple(name for name in class_dependent(options) if name in own and name in weights)
        weights.update({name: own[name] for name in fresh})
    load_weights(module, weights, path)
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in fresh))


def class_dependent(options: TrainOptions) -> list[str]:
    """Names of the weights of a module whose shape depends on the number of classes: found by comparing
    two models that differ in nothing else."""
    backbone = replace(options.backbone, pretrained=False)
    with torch.device("meta"):
        one, other = (model_from_options(backbone, options.model, classes).state_dict() for classes in (2, 3))
    return [f"{PREFIX}{name}" for name in one if one[name].shape != other[name].shape]

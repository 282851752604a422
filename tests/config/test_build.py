"""Fine-tuning: only what depends on the classes starts anew, and everything else must fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kmax.categories import Categories, load_categories
from kmax.checkpoint.own import read_checkpoint
from kmax.config.build import build_module
from kmax.config.compose import compose_config, run_options
from kmax.config.options import TrainOptions
from kmax.config.trained import class_dependent, initialize_from
from kmax.module import KMaXModule
from small_run import SMALL_MODEL


def module(categories: Categories, folder: Path, *overrides: str) -> tuple[KMaXModule, TrainOptions]:
    """A new model of the shapes' recipe for other classes, with its options."""
    file = folder / "classes.json"
    file.write_text(json.dumps(categories.to_dict()))
    names = ("~callbacks", "logger=none", "loss.samples=64", f"dataset.categories={file}")
    options = run_options(compose_config("shapes", *SMALL_MODEL, *names, *overrides))
    return build_module(options, pretrained=False), options


def some_classes(number: int) -> Categories:
    classes = load_categories("coco").classes[:number]
    return Categories("some", classes)


@pytest.mark.long
@pytest.mark.parametrize("number", [3, 10])
def test_other_classes_keep_their_fresh_heads_and_load_the_rest(
    tiny_checkpoint: Path, tmp_path: Path, number: int
) -> None:
    ours, options = module(some_classes(number), tmp_path)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    fresh = initialize_from(ours, options, tiny_checkpoint)
    assert len(fresh) == 5  # three layers, the final prediction, the semantic head
    assert all(name.endswith("class_logits") or "semantic_head" in name for name in fresh)
    theirs = read_checkpoint(tiny_checkpoint)["state_dict"]
    for name, value in ours.state_dict().items():
        expected = before if name.rpartition(".")[0] in fresh else theirs
        assert torch.equal(value, expected[name]), name


@pytest.mark.long
def test_the_same_classes_are_loaded_altogether(tiny_checkpoint: Path, tmp_path: Path) -> None:
    ours, options = module(load_categories("shapes"), tmp_path)
    assert initialize_from(ours, options, tiny_checkpoint) == ()
    theirs = read_checkpoint(tiny_checkpoint)["state_dict"]
    assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())


@pytest.mark.long
@pytest.mark.parametrize(
    "override",
    ["model.num_queries=7", "model.semantic_head=none", "model.semantic_head=aspp"],
)
def test_anything_else_that_differs_is_refused(tiny_checkpoint: Path, tmp_path: Path, override: str) -> None:
    with pytest.raises(ValueError, match="do not fit this model"):
        initialize_from(*module(some_classes(3), tmp_path, override), tiny_checkpoint)


@pytest.mark.long
@pytest.mark.parametrize("experiment", ["coco_resnet50", "cityscapes_resnet50"])
def test_class_dependent_weights_of_published_models(experiment: str) -> None:
    names = class_dependent(run_options(compose_config(experiment, "~callbacks", "logger=none")))
    assert len(names) == 2 * (6 + 1 + 1)  # weight and bias of each class head and of the last semantic convolution

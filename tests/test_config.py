"""Every experiment composes and instantiates; typos and wrong types are named while composing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import OmegaConf

from kmax.build import model_from_config
from kmax.categories import load_categories
from kmax.config import batch_plan, compose_config, conf_dir, resolve

EXPERIMENTS = sorted(f.stem for f in (conf_dir() / "experiment").glob("*.yaml"))
STRATEGIES = sorted(f.stem for f in (conf_dir() / "strategy").glob("*.yaml"))
PUBLISHED = {
    "coco_resnet50": "coco_r50",
    "coco_convnext_tiny": "coco_convnext_tiny",
    "coco_convnext_small": "coco_convnext_small",
    "coco_convnext_base": "coco_convnext_base",
    "coco_convnext_large": "coco_convnext_large",
    "cityscapes_resnet50": "cityscapes_r50",
    "cityscapes_convnext_large": "cityscapes_convnext_large",
    "ade20k_resnet50": "ade20k_r50",
    "ade20k_convnext_large": "ade20k_convnext_large",
}


def plain(config) -> dict:
    """Resolved without the sections that need a running Hydra job."""
    config = OmegaConf.create({k: v for k, v in config.items() if k not in ("callbacks", "logger")})
    return resolve(config)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_builds_its_model(experiment: str) -> None:
    config = plain(compose_config(experiment))
    assert config["name"] == experiment
    categories = load_categories(config["dataset"]["categories"])
    with torch.device("meta"):
        model = model_from_config(config, categories.num_classes, pretrained=False)
    count = sum(p.numel() for p in model.parameters())
    if experiment in PUBLISHED:
        import json

        summary = json.loads((Path(__file__).parent / "golden/checkpoints/summary.json").read_text())
        assert count == summary[PUBLISHED[experiment]]["parameters"]
    else:
        assert 1e5 < count < 1e8


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_composes(strategy: str) -> None:
    config = plain(compose_config("coco_resnet50", f"strategy={strategy}"))
    per_device, accumulate = batch_plan(config)
    assert per_device >= 1
    assert accumulate >= 1


def test_multinode_keeps_the_published_batch() -> None:
    assert batch_plan(plain(compose_config("coco_resnet50", "strategy=ddp_multinode"))) == (2, 1)
    assert batch_plan(plain(compose_config("coco_resnet50", "strategy=cpu", "strategy.batch_size_per_device=4"))) == (
        4,
        16,
    )


def test_an_indivisible_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch of 64 cannot be made"):
        batch_plan(plain(compose_config("coco_resnet50", "strategy=cpu", "strategy.batch_size_per_device=7")))


def everything(error: BaseException) -> str:
    return f"{error} {error.__cause__}"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optimizer.learning_rate=1", "learning_rate"),
        ("model.num_querys=3", "num_querys"),
        ("model.num_queries=many", "num_queries"),
        ("dataset.sise=[1,1]", "sise"),
        ("strategy.devises=2", "devises"),
    ],
)
def test_a_typo_or_a_wrong_type_is_named(override: str, named: str) -> None:
    with pytest.raises(ConfigCompositionException) as caught:
        compose_config("coco_resnet50", override)
    assert named in everything(caught.value)


def test_an_unknown_experiment_is_named() -> None:
    with pytest.raises(MissingConfigException, match="no_such"):
        compose_config("no_such")


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ValueError, match="lr"):
        resolve(OmegaConf.create({"optimizer": {"lr": "???"}}))

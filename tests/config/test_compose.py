"""Every experiment composes and instantiates; typos and wrong types are named while composing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import DictConfig, OmegaConf

from kmax.categories import load_categories
from kmax.config.build import model_from_options
from kmax.config.checks import follow_batch, plan_of
from kmax.config.compose import command_line, compose_config, conf_dir, read_options, run_options
from kmax.config.options import PlanOptions, TrainOptions

EXPERIMENTS = sorted(
    f.stem
    for f in (conf_dir() / "experiment").glob("*.yaml")
    if f.stem != "finetune"  # whose numbers follow from files: test_finetune.py
)
STRATEGIES = sorted(f.stem for f in (conf_dir() / "strategy").glob("*.yaml"))
PUBLISHED = {
    "coco_resnet50": "coco_r50",
    "coco_resnet50_8gpu": "coco_r50",
    "coco_resnet50_1gpu": "coco_r50",
    "coco_convnext_tiny": "coco_convnext_tiny",
    "coco_convnext_small": "coco_convnext_small",
    "coco_convnext_base": "coco_convnext_base",
    "coco_convnext_large": "coco_convnext_large",
    "cityscapes_resnet50": "cityscapes_r50",
    "cityscapes_convnext_large": "cityscapes_convnext_large",
    "ade20k_resnet50": "ade20k_r50",
    "ade20k_convnext_large": "ade20k_convnext_large",
}


def options_of(config: DictConfig) -> TrainOptions:
    """Without the sections that need a running Hydra job."""
    return run_options(OmegaConf.create({k: v for k, v in config.items() if k not in ("callbacks", "logger")}))


@pytest.mark.long
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_builds_its_model(experiment: str) -> None:
    options = options_of(compose_config(experiment))
    assert options.name == experiment
    categories = load_categories(options.dataset.categories)
    backbone = replace(options.backbone, pretrained=False)
    with torch.device("meta"):
        model = model_from_options(backbone, options.model, categories.num_classes)
    count = sum(p.numel() for p in model.parameters())
    if experiment in PUBLISHED:
        import json

        summary = json.loads((Path(__file__).parents[1] / "golden/checkpoints/summary.json").read_text())
        assert count == summary[PUBLISHED[experiment]]["parameters"]
    else:
        assert 1e5 < count < 5e8


@pytest.mark.long
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_composes(strategy: str) -> None:
    options = options_of(compose_config("coco_resnet50", f"strategy={strategy}"))
    plan = plan_of(options.strategy, options.dataset.batch_size)
    assert plan.effective_batch == 64 == plan.total_devices * plan.batch_size_per_device * plan.accumulate
    assert options.plan.total_devices == plan.total_devices


def test_multinode_keeps_the_published_batch() -> None:
    options = options_of(compose_config("coco_resnet50", "strategy=ddp_multinode"))
    assert options.plan == PlanOptions(total_devices=32, batch_size_per_device=2, accumulate=1, effective_batch=64)
    plan = plan_of(options.strategy, options.dataset.batch_size)
    assert str(plan) == "effective batch 64 = 32 devices × 2 per device × 1 accumulated"
    options = options_of(compose_config("coco_resnet50", "strategy=cpu", "strategy.batch_size_per_device=4"))
    assert (options.plan.batch_size_per_device, options.plan.accumulate) == (4, 16)
    assert options.optimizer.lr == 5e-4


def test_rate_and_steps_follow_the_devices_when_asked() -> None:
    half = ("strategy=ddp_multinode", "strategy.num_nodes=2", "strategy.batch_size_per_device=2")
    options = options_of(compose_config("coco_resnet50", *half, "strategy.batch_rule=scale"))
    assert options.dataset.batch_size == options.plan.effective_batch == 32
    assert options.optimizer.lr == pytest.approx(2.5e-4)
    assert (options.optimizer.steps, options.optimizer.warmup_steps) == (300_000, 10_000)
    assert options.trainer.val_every_steps == 10_000
    assert follow_batch(options) == options, "options are not scaled again"
    kept = options_of(compose_config("coco_resnet50", *half))
    assert (kept.plan.accumulate, kept.optimizer.steps) == (2, 150_000)


def test_an_unknown_batch_rule_is_named() -> None:
    with pytest.raises(ValueError, match=r"strategy\.batch_rule=double must be one of keep, scale"):
        options_of(compose_config("coco_resnet50", "strategy.batch_rule=double"))


@pytest.mark.parametrize("devices", [7, "strategy.batch_size_per_device=7"])
def test_an_indivisible_batch_is_refused(devices: int | str) -> None:
    override = devices if isinstance(devices, str) else f"strategy.devices={devices}"
    config = compose_config("coco_resnet50", "strategy=cpu", override)
    del config.callbacks, config.logger
    with pytest.raises(ValueError, match=r"^An effective batch of 64 cannot be made of .* change dataset.batch_size.$"):
        run_options(config)


def test_a_listing_shows_values() -> None:
    assert command_line(["train.py", "--cfg", "job"])[-1] == "--resolve"
    assert command_line(["train.py", "-c=job"]) == ["train.py", "-c=job"]
    assert command_line(["train.py", "--cfg=job", "--resolve"]) == ["train.py", "--cfg=job", "--resolve"]


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
    with pytest.raises(ValueError, match=r"lacks a value for optimizer\.lr"):
        read_options(TrainOptions, OmegaConf.create({"optimizer": {"lr": "???"}}))

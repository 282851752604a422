"""A fine-tuning's numbers follow from its images, and each of them from those that are set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kmax.config import finetune
from kmax.config.compose import compose_config, run_options
from kmax.config.options import TrainOptions


def options_for(root: Path, images: int, size: tuple[int, int], *overrides: str) -> TrainOptions:
    """The options of a fine-tuning on a folder that lists so many images of one size (width, height)."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    content = {
        "images": [{"id": i, "width": size[0], "height": size[1], "file_name": f"{i}.jpg"} for i in range(images)],
        "annotations": [],
        "categories": [{"id": i, "name": f"class {i}", "isthing": 1} for i in (1, 2, 3)],
    }
    (root / "annotations/panoptic_train.json").write_text(json.dumps(content))
    return run_options(compose_config("finetune", f"dataset.root={root}", "~callbacks", "logger=none", *overrides))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.usefixtures("gpu")
def test_the_plan_of_24_images(tmp_path: Path) -> None:
    options = options_for(tmp_path / "mugs", 24, (640, 480))
    assert options.name == "finetune_mugs"
    assert (options.dataset.size, options.dataset.batch_size) == ((641, 641), 8)
    assert (options.optimizer.steps, options.optimizer.warmup_steps) == (1500, 75)
    assert (options.trainer.val_every_steps, options.loss.samples) == (75, 3240)
    assert options.optimizer.lr == pytest.approx(5e-4 * (8 / 64) ** 0.5, rel=0.05)
    assert finetune.plan_text(options) == (
        "Fine-tuning: 24 images, 3 classes, crops of 641×641 · batch 8, 1500 steps (500 epochs), rate 0.00018 · "
        "validation every 75 steps"
    )


@pytest.mark.usefixtures("gpu")
def test_the_plan_of_3000_images(tmp_path: Path) -> None:
    options = options_for(tmp_path / "streets", 3000, (1920, 1080), "backbone.freeze=2")
    assert options.dataset.size == (641, 641)
    assert options.optimizer.steps == 22500 == 3000 * finetune.EPOCHS // options.dataset.batch_size
    assert options.trainer.val_every_steps == 1125
    assert options.optimizer.ema_decay is not None
    assert 0.999 < options.optimizer.ema_decay < 1
    assert "60 epochs" in finetune.plan_text(options)
    assert "its first 2 stages are frozen" in finetune.plan_text(options)


def test_what_is_set_is_followed(tmp_path: Path) -> None:
    sizes = ("dataset.size=[129,193]", "dataset.batch_size=2", "optimizer.steps=200")
    options = options_for(tmp_path / "few", 5, (300, 200), *sizes)
    assert options.loss.samples == 33 * 49 // 8
    assert options.trainer.val_every_steps == 10
    assert options.optimizer.warmup_steps == 10
    assert options.optimizer.lr == finetune.rate_for(2)


@pytest.mark.parametrize(("long_side", "side"), [(100, 257), (300, 289), (500, 513), (4000, 641)])
def test_crops_are_of_32k_plus_1(long_side: int, side: int) -> None:
    assert finetune.crop_side(long_side, has_gpu=True) == side
    assert finetune.crop_side(long_side, has_gpu=False) == 257


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"panoptic_train\.json: give the folder that prepare_own\.py made"):
        finetune.data_facts(tmp_path / "panoptic_train.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match=r"list\.json is no panoptic JSON"):
        finetune.data_facts(tmp_path / "list.json")
    (tmp_path / "none.json").write_text('{"images": [], "categories": []}')
    with pytest.raises(ValueError, match="lists no image"):
        finetune.data_facts(tmp_path / "none.json")

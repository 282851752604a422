"""Recipes with newer backbones: they build, take a local file of weights, and train a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from conftest import ROOT
from kmax.config.compose import compose_config, run_options
from kmax.losses import Criterion
from kmax.losses.options import LossOptions
from kmax.model import KMaXDeepLab, build_backbone
from kmax.model.options import BackboneOptions, ModelOptions
from kmax.structures import Target

FILES = sorted(
    path for start in ("convnextv2", "dinov3", "swin") for path in (ROOT / "conf/backbone").glob(f"{start}_*.yaml")
)
SMALL: dict[str, Any] = {
    "num_queries": 4, "widths": (16, 8, 8, 8), "blocks": (1, 1, 1, 1), "layers": (1, 1, 1), "dim": 16, "feature_dim": 8,
    "ffn_dim": 16, "drop_path": 0.0, "semantic_head": "none",
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_recipe_builds_and_names_its_licence(file: Path) -> None:
    name = yaml.safe_load(file.read_text())["name"]
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    licence = str(config.license)
    words = {"cc-by-nc-4.0": "CC BY-NC 4.0", "dinov3-license": "DINOv3 License", "mit": "MIT"}
    assert words[licence] in file.read_text().splitlines()[0]
    with torch.device("meta"):
        backbone = build_backbone(name.partition(".")[0])
    assert {4, 8, 16, 32} <= backbone.channels.keys()


def test_the_largest_has_its_published_size() -> None:
    with torch.device("meta"):
        backbone = build_backbone("convnextv2_huge")
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6) == 657


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnextv2_atto", "convnext_tiny.dinov3_lvd1689m", "swin_tiny"])
def test_a_local_file_is_loaded_and_a_step_trained(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    full = "swin_tiny_patch4_window7_224" if name == "swin_tiny" else name
    weights = {key: value.contiguous() for key, value in timm.create_model(full).state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    backbone = build_backbone(BackboneOptions(name, pretrained=str(tmp_path / "weights.safetensors")))
    key = "patch_embed.proj.weight" if name == "swin_tiny" else "stem.0.weight"
    assert torch.equal(backbone.state_dict()[f"body.{key}"], weights[key])
    model = KMaXDeepLab(backbone, 3, ModelOptions(**SMALL)).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    targets = [Target(torch.randint(-1, 3, (17, 17)), torch.tensor([0, 2, 1])) for _ in range(2)]
    Criterion(3, LossOptions(samples=32))(model(torch.randn(2, 3, 65, 65)), targets).total.backward()
    optimizer.step()
    assert not torch.equal(backbone.state_dict()[f"body.{key}"], weights[key])


@pytest.mark.long
def test_the_dinov3_experiment_is_full_or_frozen() -> None:
    without = ("~callbacks", "logger=none")
    full = run_options(compose_config("coco_dinov3_convnext_large", *without))
    assert (full.backbone.name, full.backbone.freeze) == ("convnext_large.dinov3_lvd1689m", 0)
    frozen = run_options(
        compose_config("coco_dinov3_convnext_large", "backbone.freeze=all", "backbone.drop_path=0", *without)
    )
    assert frozen.backbone.freeze == "all"
    with torch.device("meta"):
        backbone = build_backbone(BackboneOptions("convnext_large", freeze="all"))
    assert not [p for p in backbone.parameters() if p.requires_grad]

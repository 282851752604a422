"""Parameter groups by rule."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import golden_tools
from kmax.checkpoint.detectron2 import our_name
from kmax.model import build_backbone
from kmax.optim import parameter_groups


class Tables(nn.Module):
    """A backbone, and everything that must not decay."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.linear = nn.Linear(4, 4)
        self.depthwise = nn.Conv1d(4, 4, 5, groups=4)
        self.embedding = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm((4, 4))
        self.centres = nn.Parameter(torch.zeros(4, 2))
        self.layer_scale = nn.Parameter(torch.zeros(4))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.tied = self.linear


def test_rules() -> None:
    model = Tables()
    groups = {group["name"]: group for group in parameter_groups(model, 1.0, 0.05, 0.1)}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "backbone/decay": (0.1, 0.05),
        "backbone/no_decay": (0.1, 0.0),
        "decoder/decay": (1.0, 0.05),
        "decoder/no_decay": (1.0, 0.0),
    }
    assert set(groups["backbone/decay"]["params"]) == {model.backbone[0].weight}
    assert set(groups["decoder/decay"]["params"]) == {model.linear.weight, model.depthwise.weight}
    everything = [parameter for group in groups.values() for parameter in group["params"]]
    assert len(everything) == len(set(everything))
    assert set(everything) == {p for p in model.parameters() if p.requires_grad}
    torch.optim.AdamW(list(groups.values()))


def test_without_a_backbone_and_without_tables() -> None:
    groups = parameter_groups(nn.Linear(2, 2, bias=False), 1.0, 0.05)
    assert [group["name"] for group in groups] == ["decoder/decay"]


@pytest.mark.parametrize("multiplier", [0.0, 1.0])
def test_backbone_rate(multiplier: float) -> None:
    rates = {group["name"]: group["lr"] for group in parameter_groups(Tables(), 0.5, 0.05, multiplier)}
    assert rates["backbone/decay"] == 0.5 * multiplier
    assert rates["decoder/decay"] == 0.5


@pytest.mark.parametrize("name", ["coco_r50", "coco_convnext_tiny"])
def test_published_models_equal_recorded(name: str) -> None:
    recorded = json.loads((golden_tools.GOLDEN / f"optimizer_{name}.json").read_text())["parameters"]
    model = golden_tools.model(name, device="meta")
    ours = {
        parameter: (group["lr"], group["weight_decay"])
        for group in parameter_groups(model, 1.0, 0.05, 0.1)
        for parameter in group["params"]
    }
    found = {key: ours[parameter] for key, parameter in model.named_parameters()}
    assert found == {our_name(key): tuple(value) for key, value in recorded.items()}


@pytest.mark.parametrize(("name", "layers"), [("resnet10t", 5), ("convnext_atto", 13)])
def test_rates_fall_from_the_last_layer_of_the_backbone_to_the_first(name: str, layers: int) -> None:
    model = nn.Module()
    model.backbone, model.head = build_backbone(name), nn.Linear(2, 2)
    groups = parameter_groups(model, 1e-3, 0.05, 0.1, layer_decay=0.5)
    rates = {int(g["name"].split("/")[1]): g["lr"] for g in groups if g["name"].startswith("backbone")}
    assert rates == {n: pytest.approx(1e-4 * 0.5 ** (layers - 1 - n)) for n in range(layers)}
    assert {g["lr"] for g in groups if g["name"].startswith("decoder")} == {1e-3}
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped)) == len([p for p in model.parameters() if p.requires_grad])


def test_layers_that_are_not_known_are_named() -> None:
    model = nn.Module()
    model.backbone = build_backbone("mobilenetv3_small_050")
    with pytest.raises(ValueError, match="does not tell its layers"):
        parameter_groups(model, 1e-3, 0.05, 0.1, layer_decay=0.5)

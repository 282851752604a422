"""Frozen stages and norms neither learn nor count, and everything else does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kmax.model import build_backbone
from kmax.model.options import BackboneOptions
from kmax.options import OptionError


def learning(backbone: nn.Module) -> set[str]:
    return {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("name", "first"), [("resnet10t", "body.layer3"), ("convnext_atto", "body.stages.2")])
def test_the_first_stages_stay_as_they_are(name: str, first: str) -> None:
    free = learning(build_backbone(name))
    backbone = build_backbone(BackboneOptions(name, freeze=2, drop_path=0.5)).train()
    assert learning(backbone) < free
    assert min(learning(backbone)).startswith(first)
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    features = backbone(torch.randn(2, 3, 65, 65))
    assert not features[8].requires_grad
    assert features[16].requires_grad
    changed = {key for key, value in backbone.state_dict().items() if not torch.equal(value, state[key])}
    assert all(key > first for key in changed)
    assert torch.equal(backbone(torch.ones(1, 3, 65, 65))[8], backbone(torch.ones(1, 3, 65, 65))[8]), "nothing drops"


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_a_whole_backbone_is_frozen(name: str) -> None:
    backbone = build_backbone(BackboneOptions(name, freeze="all")).train()
    assert not learning(backbone)
    assert not any(module.training for module in backbone.modules())


def test_norms_keep_their_statistics_and_learn_their_weights() -> None:
    backbone = build_backbone(BackboneOptions("resnet10t", freeze_norms=True)).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items() if "running" in key}
    backbone(torch.randn(2, 3, 65, 65))[32].sum().backward()
    assert all(torch.equal(backbone.state_dict()[key], value) for key, value in before.items())
    assert backbone.get_parameter("body.layer1.0.bn1.weight").grad is not None


def test_what_cannot_be_frozen_is_named() -> None:
    with pytest.raises(OptionError, match=r"freeze=5 must be all, or a number of stages from 0 to 4"):
        BackboneOptions("resnet18", freeze=5)
    with pytest.raises(OptionError, match="freeze takes all or 0 for this backbone"):
        build_backbone(BackboneOptions("hrnet_w18_small", freeze=1))


@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_050", "regnety_002", "densenet121", "swin_tiny", "edgenext_xx_small"]
)
def test_stages_of_any_timm_model_can_be_frozen(name: str) -> None:
    backbone = build_backbone(BackboneOptions(name, freeze=2)).train()
    features = backbone(torch.randn(2, 3, 64, 64))
    assert [features[stride].requires_grad for stride in (4, 8, 16, 32)] == [False, False, True, True]
    free = learning(backbone)
    features[16].sum().backward()
    features = backbone(torch.randn(2, 3, 64, 64))
    features[32].sum().backward()
    learned = {key for key, parameter in backbone.named_parameters() if parameter.grad is not None}
    assert learned == free, "what is free learns, and nothing else"

"""MaX-S runs at any size, all of it trains, paths drop as they should; its numbers: test_golden_tensorflow."""

from __future__ import annotations

import pytest
import torch
from timm.layers import DropPath

from kmax.model import KMaXDeepLab, build_backbone
from kmax.model.features import STEM, STRIDES, Backbone
from kmax.model.options import BackboneOptions, ModelOptions


def max_s(drop_path: float = 0.0, checkpointing: bool = False) -> Backbone:
    return build_backbone(BackboneOptions("max_s", drop_path=drop_path, checkpointing=checkpointing), "deeplab2")


@pytest.mark.parametrize(
    "size", [(65, 97), *(pytest.param(size, marks=pytest.mark.long) for size in ((64, 96), (50, 71), (1, 1)))]
)
def test_features_have_their_strides_at_any_size(size: tuple[int, int]) -> None:
    backbone = max_s().eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, *size))
    expected = {
        stride: (backbone.channels[stride], -(-size[0] // max(stride, 2)), -(-size[1] // max(stride, 2)))
        for stride in (STEM, *STRIDES)
    }
    assert {stride: tuple(feature.shape[1:]) for stride, feature in features.items()} == expected


@pytest.mark.long
def test_every_parameter_learns_also_when_activations_are_computed_again() -> None:
    torch.manual_seed(0)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        model = KMaXDeepLab(
            max_s(checkpointing=checkpointing), 3, ModelOptions(
                family="deeplab2", num_queries=4, stem_stage=True, drop_path=0.0, widths=(16, 8, 8, 8, 8),
                blocks=(1, 1, 1, 1, 1), layers=(1, 1, 1), dim=16, feature_dim=8, ffn_dim=16, semantic_head="plain",
            )
        )  # fmt: skip
        for module in model.modules():  # the norms that start at 0 would hide what is behind them
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                torch.nn.init.ones_(module.weight)
        output = model.train()(torch.randn(2, 3, 65, 97))
        assert output.predictions[-1].mask_logits.shape == (2, 4, 33, 49)
        assert output.semantic_logits.shape == (2, 3, 3, 4)
        losses = [p.class_logits.square().mean() + p.mask_logits.square().mean() for p in output.predictions]
        (sum(losses) + output.semantic_logits.square().mean()).backward()
        missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not missing
        gradients.append(model.get_parameter("backbone.stem.0.conv.weight").grad)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


@pytest.mark.long
def test_drop_path_grows_from_block_to_block() -> None:
    rates = [module.drop_prob for module in max_s(0.2).modules() if isinstance(module, DropPath)]
    assert len(rates) == 16
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.2)
    assert rates == sorted(rates)

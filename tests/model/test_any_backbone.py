"""Backbones beyond the published ones, and inputs of any size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import long_but
from kmax import build_model
from kmax.model import KMaXDeepLab, build_backbone
from kmax.model.options import BackboneOptions, ModelOptions

SMALL: dict[str, Any] = {
    "num_queries": 8,
    "widths": (16, 16, 16, 16),
    "blocks": (1, 1, 1, 1),
    "layers": (1, 1, 1),
    "dim": 32,
    "feature_dim": 16,
    "ffn_dim": 32,
    "semantic_head": "plain",
}


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet18", "swin_tiny", "mobilenetv4_conv_small_050", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("size", [(65, 97), (64, 90), (33, 50)])
def test_features_lie_on_every_stride(name: str, size: tuple[int, int]) -> None:
    backbone = build_backbone(name).eval()
    features = backbone(torch.randn(1, 3, *size))
    for stride in (4, 8, 16, 32):
        expected = (1, backbone.channels[stride], -(-size[0] // stride), -(-size[1] // stride))
        assert tuple(features[stride].shape) == expected


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "no_such_model", "convnext_atto_ols"])
def test_what_cannot_serve_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"timm|ConvNeXt"):
        build_backbone(name)


def test_dinov3_weights_go_by_their_tag() -> None:
    with torch.device("meta"):
        backbone = build_backbone("convnext_large.dinov3_lvd1689m")
    assert backbone.channels[32] == 1536


@pytest.mark.parametrize("size", long_but([(1, 1), (32, 32), (61, 130), (129, 65)], (1, 1), (61, 130)))
def test_the_model_runs_at_any_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = KMaXDeepLab(build_backbone("resnet18"), 5, ModelOptions(**SMALL)).eval()
    with torch.no_grad():
        output = model(torch.randn(2, 3, *size))
    final = output.predictions[-1]
    cells = (-(-size[0] // 4), -(-size[1] // 4))
    assert tuple(final.mask_logits.shape) == (2, 8, *cells)
    assert all(p.mask_logits.shape == final.mask_logits.shape for p in output.predictions)
    assert all(t.isfinite().all() for p in output.predictions for t in p)


@pytest.mark.long
def test_an_image_beyond_the_relative_positions_is_refused() -> None:
    model = KMaXDeepLab(build_backbone("resnet18"), 5, ModelOptions(**SMALL)).eval()
    with torch.no_grad(), pytest.raises(ValueError, match="use a smaller input"):
        model(torch.randn(1, 3, 64, 32 * 256))


@pytest.mark.long
def test_weights_do_not_depend_on_a_size() -> None:
    """A model knows no input size, so what is trained at one size is the model of every other."""
    shapes = {name: tuple(value.shape) for name, value in build_model("shapes").state_dict().items()}
    other = build_model("shapes", "dataset.size=[65,193]").state_dict()
    assert shapes == {name: tuple(value.shape) for name, value in other.items()}


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = KMaXDeepLab(
            build_backbone(BackboneOptions("convnext_atto", checkpointing=checkpointing)),
            5,
            ModelOptions(**SMALL, drop_path=0.0),
        )
        model.train()
        torch.manual_seed(1)
        output = model(torch.randn(2, 3, 65, 65))
        sum(p.mask_logits.square().mean() for p in output.predictions).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)

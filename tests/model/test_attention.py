"""Cross-attention as k-means and as softmax over pixels, each against its equation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kmax.model import KMaXDeepLab, build_backbone, kmeans
from kmax.model.options import ModelOptions

B, N, C, P = 2, 5, 7, 60


@pytest.fixture
def affinity() -> torch.Tensor:
    return torch.randn(B, N, P, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def values() -> torch.Tensor:
    return torch.randn(B, C, P, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_kmeans_sums_the_pixels_of_each_cluster(affinity: torch.Tensor, values: torch.Tensor) -> None:
    result = kmeans.update(kmeans.assign(affinity), values, N)
    for image in range(B):
        for query in range(N):
            own = [p for p in range(P) if affinity[image, :, p].argmax() == query]
            torch.testing.assert_close(result[image, :, query], values[image][:, own].sum(1))


def test_softmax_averages_over_pixels(affinity: torch.Tensor, values: torch.Tensor) -> None:
    result = kmeans.softmax_update(affinity, values)
    weights = affinity.exp() / affinity.exp().sum(-1, keepdim=True)
    torch.testing.assert_close(result, torch.einsum("bcp,bnp->bcn", values, weights))
    same = kmeans.softmax_update(torch.zeros_like(affinity), values)
    torch.testing.assert_close(same, values.mean(-1, keepdim=True).expand(B, C, N))


def test_half_precision_is_raised(affinity: torch.Tensor, values: torch.Tensor) -> None:
    half, low = affinity.bfloat16(), values.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        result = kmeans.softmax_update(half, low)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, kmeans.softmax_update(half.float(), low.float()))


def small_model(attention: str) -> KMaXDeepLab:
    torch.manual_seed(0)
    sizes = ModelOptions(widths=(16, 16, 8, 8), blocks=(1, 1, 1, 1), layers=(1, 1, 1), dim=32, feature_dim=16)
    return KMaXDeepLab(
        build_backbone("resnet18"),
        5,
        replace(sizes, num_queries=8, ffn_dim=32, drop_path=0.0, semantic_head="none", attention=attention),
    )


@pytest.mark.long
def test_the_two_kinds_share_their_weights_and_differ_where_pixels_are_gathered() -> None:
    hard, soft = small_model("kmeans").eval(), small_model("softmax").eval()
    extra = soft.state_dict().keys() - hard.state_dict().keys()
    assert extra
    assert all("attention_norm" in name for name in extra)
    soft.load_state_dict(hard.state_dict(), strict=False)
    images = torch.randn(1, 3, 65, 65, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        first = hard(images).predictions, soft(images).predictions
        # The update starts with scale 0: until it is trained, what was gathered counts nothing.
        torch.testing.assert_close(first[0][-1].mask_logits, first[1][-1].mask_logits)
        for model in (hard, soft):
            for layer in model.transformer_decoder.layers:
                layer.get_parameter("update_out.norm.weight").fill_(1.0)
        torch.testing.assert_close(hard(images).predictions[0], soft(images).predictions[0])
        assert not torch.allclose(hard(images).predictions[1][0], soft(images).predictions[1][0], atol=1e-3)


def test_gradients_reach_the_assignment_only_through_softmax() -> None:
    for attention in ("kmeans", "softmax"):
        model = small_model(attention).train()
        layer = model.transformer_decoder.layers[0]
        with torch.no_grad():
            layer.get_parameter("update_out.norm.weight").fill_(1.0)
        images = torch.randn(2, 3, 65, 65, generator=torch.Generator().manual_seed(3))
        model(images).predictions[1].class_logits.square().sum().backward()
        gradient = layer.get_parameter("predictor.mask_kernel.conv.weight").grad
        assert (gradient is not None and bool(gradient.abs().max() > 0)) == (attention == "softmax")


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="attention=hard must be one of kmeans, softmax"):
        small_model("hard")

"""MaX-DeepLab beside its recorded numbers: sizes, parameters, drop path, initialization, the dual path against its
definition."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import pytest
import torch

import golden_tools
from conftest import long_but
from kmax.losses import Criterion
from kmax.losses.options import LossOptions
from kmax.model.axial_attention import RelativePosition
from kmax.model.dual_path import DualPathBlock, MemoryOptions
from kmax.model.max_deeplab import MaXDeepLab
from kmax.model.options import ModelOptions
from kmax.model.stacked import LAYOUTS, drop_rates
from kmax.structures import Target

SMALL: dict[str, Any] = {
    "width": 0.125, "num_queries": 6, "dim": 16, "feature_dim": 8, "hidden_dim": 16, "ffn_dim": 16, "drop_path": 0.0,
    "semantic_dim": 8,
}  # fmt: skip

PROTOTYPES = LossOptions(semantic_temperature=None, instance_loss="prototypes")


def small(variant: str = "s", **options: Any) -> MaXDeepLab:
    torch.manual_seed(0)
    return MaXDeepLab(variant, 3, ModelOptions(architecture="max_deeplab", **{**SMALL, **options}))


M = TypeVar("M", bound=torch.nn.Module)


def ones(model: M) -> M:
    """The norms that start at 0 would hide what is behind them."""
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            torch.nn.init.ones_(module.weight)
    return model


@pytest.mark.parametrize(
    ("variant", "network", "semantic", "backbone"), [("s", 61.9, 15.9, 41.3), ("l", 450.8, 0.1, 175.1)]
)
def test_parameters_are_the_published_ones(variant: str, network: float, semantic: float, backbone: float) -> None:
    model = golden_tools.max_model(variant, "meta")
    counts = {part: sum(p.numel() for p in module.parameters()) / 1e6 for part, module in model.named_children()}
    total = sum(p.numel() for p in model.parameters()) / 1e6
    assert round(total - counts["semantic_head"], 1) == network
    assert round(counts["semantic_head"], 1) == semantic
    assert round(counts["backbone"], 1) == backbone  # what learns at a tenth of the rate


def test_drop_path_grows_with_the_stride() -> None:
    def rates(variant: str, schedule: str = "linear") -> list[list[float]]:
        return [[round(r, 6) for r in step] for step in drop_rates(LAYOUTS[variant], 0.2, schedule)]

    assert rates("s") == [[0] * 3, [0] * 4, [0, *[0.15] * 5], [0.15, 0.2, 0.2], [0.2], [0], [0]]
    up, fine, coarse = [0.1] * 3, [0.05] * 3, [0.2] * 3
    assert rates("l") == [
        [0, 0, 0], [0, 0.05, 0.05], [0.05, *[0.1] * 5], [0.1, 0.15, 0.15], [0.15, 0.2, 0.2],
        [0.1], [0.05], [0.1], [0.2], coarse, up, fine, up, coarse, up, fine,
    ]  # fmt: skip
    assert {rate for step in rates("l", "constant") for rate in step} == {0.2}


@pytest.mark.parametrize("variant", long_but(["s", "l"], "s"))
@pytest.mark.parametrize("size", [(65, 97), (64, 96), (50, 71)])
def test_masks_have_stride_4_at_any_size(variant: str, size: tuple[int, int]) -> None:
    model = small(variant).eval()
    with torch.no_grad():
        output = model(torch.randn(1, 3, *size))
    height, width = (-(-side // 4) for side in size)
    assert all(p.mask_logits.shape == (1, 6, height, width) for p in output.predictions)
    assert output.predictions[-1].class_logits.shape == (1, 6, 4)


@pytest.mark.long
@pytest.mark.parametrize("head", ["aspp", "plain"])
@pytest.mark.parametrize("variant", ["s", "l"])
def test_every_parameter_learns_also_when_activations_are_computed_again(variant: str, head: str) -> None:
    targets = [Target(torch.randint(-1, 3, (17, 17)), torch.tensor([0, 2, 1])) for _ in range(2)]
    images = torch.randn(2, 3, 65, 65)
    gradients = []
    for checkpointing in (False, True):
        model = ones(small(variant, semantic_head=head)).train()
        model.checkpointing = checkpointing
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        criterion = Criterion(3, PROTOTYPES, [True, True, False])
        criterion(model(images), targets).total.backward()
        assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
        gradients.append(model.get_parameter("backbone.stem.0.conv.weight").grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


@pytest.mark.long
def test_only_the_one_prediction_is_supervised() -> None:
    model, images = small().train(), torch.randn(2, 3, 65, 65)
    assert len(model(images).predictions) == 1
    model.eval()
    with torch.no_grad():
        assert len(model(images, coarse=False).predictions) == 1
        *blocks, final = model(images).predictions
        assert torch.equal(final.mask_logits, model(images, coarse=False).predictions[0].mask_logits)
    assert len(blocks) == 4  # after each dual-path block of S: what the viewer shows
    for block in blocks:
        torch.testing.assert_close(block.mask_logits.exp().sum(1), torch.ones(2, 17, 17))
        torch.testing.assert_close(block.pixel_feature.norm(dim=1), torch.ones(2, 17, 17))


@pytest.mark.long
def test_initialization_has_the_recorded_spreads() -> None:
    model = MaXDeepLab("s", 133, ModelOptions(architecture="max_deeplab", width=0.5, semantic_head="none"))

    def spread(parameter: torch.Tensor) -> float:
        return float(parameter.detach().std())

    assert spread(model.memory) == pytest.approx(0.8796, abs=0.02)  # σ = 1, cut at ±2σ
    assert model.memory.abs().max() <= 2
    tables = [m.table for m in model.modules() if isinstance(m, RelativePosition)]
    assert tables
    assert all(table.abs().max() <= 2 for table in tables)
    conv = model.get_parameter("backbone.steps.0.blocks.1.spatial.conv.weight")  # 3×3: √(2 / fan-in) after the cut
    assert spread(conv) == pytest.approx(math.sqrt(2 / (9 * 32)), rel=0.04)
    for projection in ("memory_qkv", "pixel_qkv"):
        assert spread(model.get_parameter(f"dual_paths.3.0.{projection}.conv.weight")) == pytest.approx(
            0.8796 * 128**-0.5, rel=0.04
        )
    assert spread(model.get_parameter("backbone.steps.2.blocks.1.spatial.0.height.qkv.weight")) == pytest.approx(
        0.8796 * 256**-0.5, rel=0.04
    )
    assert spread(model.get_parameter("predictor.class_logits.weight")) == pytest.approx(0.0088, rel=0.05)


def test_a_dual_path_block_is_the_definition() -> None:
    torch.manual_seed(1)
    block: Any = ones(DualPathBlock(12, 8, MemoryOptions(dim=16, ffn_dim=16, heads=2))).double().eval()
    p, m = torch.randn(1, 12, 3, 2).double(), torch.randn(1, 16, 5).double()
    relu = torch.relu
    qm, km, vm = block.memory_qkv(block.memory_in(m)).split([8, 8, 16], 1)
    qp, kp, vp = block.pixel_qkv(block.pixel_in(relu(p))).flatten(2).split([8, 8, 16], 1)

    def attention(a: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        outputs = []
        for head in range(2):
            one, other = q[0, 4 * head : 4 * head + 4], k[0, 4 * head : 4 * head + 4]
            norm = a.logit_norm
            logits = (one.T @ other - norm.running_mean[head]) / (norm.running_var[head] + 1e-3).sqrt()
            logits = logits * norm.weight[head] + norm.bias[head]
            outputs.append(v[0, 8 * head : 8 * head + 8] @ logits.softmax(1).T)
        return relu(a.output_norm(torch.cat(outputs)[None]))

    read = attention(block.memory_attention, qm, torch.cat([kp, km], 2), torch.cat([vp, vm], 2))
    memory = relu(m + block.memory_out(read))
    memory = relu(memory + block.ffn_out(block.ffn_in(memory)))
    written = attention(block.pixel_attention, qp, km, vm)
    pixels, actual = block(p, m)
    torch.testing.assert_close(actual, memory)
    torch.testing.assert_close(pixels, p + block.pixel_out(written.unflatten(2, (3, 2))))
    weight, query = block.reading(p, m)
    torch.testing.assert_close(query.flatten(2), qp)
    torch.testing.assert_close(weight.sum(1), torch.ones(1, 3, 2).double())

"""A trained network however it is run: the same function."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kmax.config.build import build_model
from kmax.config.trained import load_trained
from kmax.model.folding import fold_batch_norms
from kmax.predict.predictor import Predictor
from kmax.predict.runtime import prepare

SIZE = (129, 129)
ONNX = pytest.param("onnx", "fp32", 1e-4, marks=pytest.mark.slow)  # its exporter takes half a minute


def with_statistics(model: nn.Module) -> nn.Module:
    """Norms as after a training: no statistic and no scale is trivial."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for name in ("running_mean", "running_var", "weight", "bias"):
                value = getattr(module, name).data
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model.eval()


@pytest.mark.long
@pytest.mark.parametrize(
    ("backbone", "family", "least"),
    [("resnet10t", "detectron2", 40), ("resnet26", "deeplab2", 60), ("efficientnet_b0", "detectron2", 30)],
)
def test_folded_norms_change_nothing(backbone: str, family: str, least: int) -> None:
    torch.manual_seed(0)
    options = ("model.dim=32", "model.ffn_dim=32", "model.heads=4", "model.decoder_heads=4", f"model.family={family}")
    model = with_statistics(build_model(None, f"backbone.name={backbone}", *options)).double()
    images = torch.randn(1, 3, 65, 97, dtype=torch.float64)
    with torch.no_grad():
        expected = model(images)
        assert fold_batch_norms(model) >= least
        folded = model(images)
    for ours, theirs in zip(folded.predictions, expected.predictions, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_norm_with_an_activation_stays() -> None:
    from timm.layers import BatchNormAct2d

    network = nn.Sequential(nn.Conv2d(3, 3, 1), BatchNormAct2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    x = torch.randn(1, 3, 4, 4)
    expected = copy.deepcopy(network)(x)
    assert fold_batch_norms(network) == 1
    torch.testing.assert_close(network(x), expected)


def logits(predictor: Predictor) -> tuple[torch.Tensor, torch.Tensor]:
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    (raw,) = predictor.raw([image])
    return raw.stages[-1].class_logits.float(), raw.stages[-1].mask_logits.float()


@pytest.mark.long
@pytest.mark.parametrize(
    ("runtime", "precision", "tolerance"),
    [("torch", "fp32", 1e-4), ("torch", "bf16", 0.1), ("torch", "fp16", 0.02), ONNX],
)
def test_every_runtime_says_the_same(tiny_checkpoint: Path, runtime: str, precision: str, tolerance: float) -> None:
    if runtime == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    expected = logits(Predictor(load_trained(tiny_checkpoint), SIZE))
    made = logits(Predictor.from_checkpoint(tiny_checkpoint, "cpu", SIZE, runtime=runtime, precision=precision))
    for ours, theirs in zip(made, expected, strict=True):
        deviation = (ours - theirs).abs() / theirs.abs().max()
        assert deviation.median() < tolerance  # a pixel between two clusters may go to the other
        assert deviation.quantile(0.95) < 3 * tolerance


@pytest.mark.parametrize(
    ("runtime", "precision", "sentence"),
    [
        ("tensorrt", "fp32", "choose one of torch, compile, onnx"),
        ("torch", "int8", "choose one of fp32, fp16, bf16"),
        ("onnx", "fp16", "runs on the CPU in fp32"),
    ],
)
def test_what_does_not_go_together_is_refused(runtime: str, precision: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        prepare(nn.Identity(), SIZE, torch.device("cpu"), runtime, precision)  # type: ignore[arg-type]

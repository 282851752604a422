"""float16 and bfloat16: nothing overflows, the scaler works, and what cannot work is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

import kmax.config.build
import train
from kmax.config.build import build_module, build_trainer
from kmax.config.compose import compose_config, run_options
from kmax.config.options import TrainOptions
from kmax.model.options import BackboneOptions
from kmax.structures import Batch, Target
from small_run import OVERRIDES, one_thread, run


def options_of(*overrides: str) -> TrainOptions:
    return run_options(compose_config(None, *OVERRIDES, "~callbacks", "~logger", *overrides))


def batch(size: int, segments: int = 5) -> Batch:
    """Two noisy images of `size`², of which the second has no segment."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, size, size), generator=generator, dtype=torch.uint8)
    cells = (size + 3) // 4
    segment_map = torch.randint(-1, segments, (cells, cells), generator=generator)
    targets = (
        Target(segment_map, torch.arange(segments) % 3),
        Target(torch.full_like(segment_map, -1), torch.zeros(0, dtype=torch.long)),
    )
    return Batch(images, torch.ones(2, size, size, dtype=torch.bool), targets)


COMPILES = pytest.mark.skipif(
    not os.environ.get("KMAX_TEST_COMPILE"), reason="compiles for minutes: set KMAX_TEST_COMPILE=1"
)


@pytest.mark.long
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backbone", ["test_resnet", "convnext_atto"])
def test_a_training_step_in_half_precision(precision: torch.dtype, backbone: str) -> None:
    torch.manual_seed(0)
    module = build_module(options_of(f"backbone.name={backbone}", "model.drop_path=0.0"), pretrained=False)
    assert module.criterion is not None
    data = batch(65)
    with one_thread():
        with torch.autocast("cpu", precision):
            output = module(data)
            losses = module.criterion(output, data.targets).by_name()
        exact = module.criterion(module(data), data.targets).by_name()
        assert all(loss.dtype == torch.float32 for loss in losses.values())
        assert all(value.isfinite().all() for prediction in output.predictions for value in prediction)
        for name, loss in losses.items():
            assert loss.isfinite(), name
        total = sum(losses.values())
        assert float(total.detach()) == pytest.approx(float(sum(exact.values()).detach()), rel=0.05)
        (1024 * total).backward()
        for name, parameter in module.model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_float16_loses_no_pixel_of_a_large_image() -> None:
    """Sums over the pixels of a 1281² image exceed 65504, the largest float16: they are made in float32."""
    from kmax.losses.matching import match_queries
    from kmax.model import kmeans

    pixels, queries = 321 * 321, 8
    with torch.autocast("cpu", torch.float16):
        values = torch.full((1, 2, pixels), 3.0, dtype=torch.float16)
        total = kmeans.update(torch.zeros(1, pixels, dtype=torch.long), values, queries)
        assert float(total[0, 0, 0]) == 3.0 * pixels
    # The criterion switches autocast off; its inputs stay in float16.
    logits = torch.zeros(1, queries, 321, 321, dtype=torch.float16)
    logits[:, 0] = 60
    target = Target(torch.zeros(321, 321, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    matched = match_queries(torch.zeros(1, queries, 4, dtype=torch.float16), logits, [target])
    assert matched.segment[0].tolist() == [0] + [-1] * (queries - 1)
    assert float(matched.mask_similarity[0, 0]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.long
def test_the_scaler_backs_off_and_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale at which gradients overflow costs steps, not weights; the scale is part of the checkpoint."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    original = kmax.config.build.build_trainer

    def build(options: TrainOptions) -> object:
        plugins = [kmax.config.build.AtomicCheckpointIO(), MixedPrecision("16-mixed", "cpu", scaler)]
        return original(options, plugins=plugins, precision=None)

    monkeypatch.setattr(train, "build_trainer", build)
    with one_thread():
        run(tmp_path, "optimizer.steps=4", "trainer.val_every_steps=4", "strategy.batch_size_per_device=4")
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    skipped = checkpoint["callbacks"]["NonFiniteGuard"]["skipped"]
    assert skipped > 0
    assert checkpoint["MixedPrecision"]["scale"] == 2.0 ** (40 - skipped)
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


@pytest.mark.long
@pytest.mark.parametrize(("precision", "dtype"), [("bf16-true", torch.bfloat16), ("64-true", torch.float64)])
def test_weights_of_another_precision(precision: str, dtype: torch.dtype, tmp_path: Path) -> None:
    with one_thread():
        run(tmp_path, f"strategy.precision={precision}", "optimizer.steps=3", "backbone.checkpointing=true")
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    weights = [value for value in checkpoint["state_dict"].values() if value.is_floating_point()]
    assert {value.dtype for value in weights} == {dtype}
    assert all(value.isfinite().all() for value in weights)
    assert checkpoint["callbacks"]["NonFiniteGuard"]["skipped"] == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["strategy=cpu", "strategy.precision=16-mixed"], "needs a GPU"),
        (["strategy=cpu", "strategy.accelerator=gpu"], "torch sees no GPU"),
        (["strategy=cpu", "strategy.precision=16-true"], "must be one of 32-true, 16-mixed"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_what_would_silently_change_is_refused(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_trainer(options_of(*overrides))


@pytest.mark.long
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_clipping_needs_unscaled_gradients(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    settings = [f"strategy.precision={precision}", "strategy=gpu", "optimizer.clip_norm=1", "optimizer.fused=true"]
    with pytest.raises(ValueError, match="fused=false"):
        options_of(*settings)
    options_of(*settings[:3])


def test_checkpointing_computes_the_same() -> None:
    from kmax.model import build_backbone

    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = build_backbone(BackboneOptions("resnet10t", checkpointing=checkpointing))
        total = sum(feature.sum() for feature in backbone(torch.rand(2, 3, 65, 65)).values())
        total.backward()
        gradients = {f"{name} grad": p.grad for name, p in backbone.named_parameters() if p.grad is not None}
        statistics = {name: b for name, b in backbone.named_buffers() if "num_batches" not in name}
        results.append({**gradients, **statistics})
    plain, again = results
    assert plain.keys() == again.keys()
    assert [name for name in plain if not torch.equal(plain[name], again[name])] == []


@pytest.mark.long
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=COMPILES)])
def test_all_options_together(compiled: bool, tmp_path: Path) -> None:
    """Moving average, accumulation, checkpointing, channels-last, clipping, bfloat16, and compiled."""
    options = (
        f"strategy.compile={compiled}",
        "backbone.name=resnet10t",
        "backbone.checkpointing=true",
        "optimizer.ema_decay=0.5",
        "optimizer.clip_norm=0.1",
        "optimizer.steps=3",
        "strategy.precision=bf16-mixed",
        "strategy.channels_last=true",
    )
    with one_thread():
        run(tmp_path, *options)
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    centres = "model.transformer_decoder.centres"
    average, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert average.keys() == current.keys()
    assert not torch.equal(average[centres], current[centres])
    best = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    assert torch.equal(best["state_dict"][centres], average[centres])

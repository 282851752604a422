"""Training on a GPU: the numbers of a CPU, few waits, and a run that continues bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

import golden_tools
import kmax.config.build
import train
from kmax.callbacks import MovingAverage
from kmax.config.build import build_model
from kmax.losses import Criterion, matching
from kmax.losses.options import LossOptions
from kmax.strategy.sync_norm import SyncBatchNorm, synchronize
from kmax.structures import Target
from small_run import SMALL_MODEL, run
from test_resume import At, Interrupt, assert_same_state, interrupt

CUDA = torch.device("cuda")
ON_GPU = ("strategy=gpu", "strategy.num_workers=0", "strategy.batch_size_per_device=2")


@pytest.fixture
def _exact() -> Iterator[None]:
    """No TF32, so that float32 is float32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.usefixtures("_exact")
def test_the_golden_forward_pass_in_float32() -> None:
    golden = golden_tools.load("forward_coco_r50")
    model = golden_tools.seeded_model("coco_r50").float().eval().to(CUDA)
    images = golden_tools.recipe.seeded_normal(str(golden["input/name"]), golden["input/shape"])
    with torch.no_grad():
        final = model(torch.from_numpy(images).float().to(CUDA)).predictions[-1]
    golden_tools.compare(final.class_logits.cpu(), golden, "final/pred_logits", 1e-4)
    golden_tools.compare(final.mask_logits.cpu(), golden, "final/pred_masks", 1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_the_golden_forward_pass_in_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    """The median deviation, relative to the largest logit: single pixels may change their cluster."""
    golden = golden_tools.load("forward_coco_r50")
    model = golden_tools.seeded_model("coco_r50").float().eval().to(CUDA)
    images = golden_tools.recipe.seeded_normal(str(golden["input/name"]), golden["input/shape"])
    x = torch.from_numpy(images).float().to(CUDA)
    with torch.no_grad():
        exact = model(x).predictions[-1]
        with torch.autocast("cuda", dtype):
            half = model(x).predictions[-1]
    for ours, theirs in ((half.class_logits, exact.class_logits), (half.mask_logits, exact.mask_logits)):
        assert float((ours.float() - theirs).abs().median() / theirs.abs().max()) < tolerance


def truth(device: torch.device | str, size: int = 17) -> list[Target]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(-1, 4, (2, size, size), generator=generator)
    return [Target(m.to(device), torch.arange(4, device=device) % 3) for m in maps]


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return build_model(None, *SMALL_MODEL, "model.drop_path=0.0").train()


@pytest.mark.usefixtures("_exact")
def test_a_training_step_is_that_of_a_cpu() -> None:
    images = torch.rand(2, 3, 65, 65, generator=torch.Generator().manual_seed(0))
    results = []
    for device in ("cpu", "cuda"):
        model = small_model().double().to(device)
        output = model(images.to(device))
        losses = Criterion(output.predictions[-1].class_logits.shape[-1] - 1, LossOptions(samples=10**6))(
            output, truth(device)
        )
        losses.total.backward()
        gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
        results.append({"loss": losses.total.detach().cpu(), **gradients})
    for name, value in results[0].items():
        scale = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(results[1][name], value, rtol=0, atol=1e-7 * scale, msg=name)


def test_a_step_waits_for_the_assignment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch itself says where the host waits; the assignment's two copies are allowed."""
    model = small_model().to(CUDA)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    images, targets = torch.rand(2, 3, 65, 65, device=CUDA), truth(CUDA)
    original = matching._assign

    def assign(*arguments: Any) -> Any:
        torch.cuda.set_sync_debug_mode("default")
        try:
            return original(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    def step() -> None:
        output = model(images)
        Criterion(output.predictions[-1].class_logits.shape[-1] - 1, LossOptions(samples=64))(
            output, targets
        ).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # cuDNN and the allocator may wait in the first
    monkeypatch.setattr(matching, "_assign", assign)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Waits(Callback):
    """Counts the warnings about waits in each whole step of a run."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 2:
            torch.cuda.set_sync_debug_mode("warn")
            self.caught = warnings.catch_warnings(record=True)
            self.found = self.caught.__enter__()
            warnings.simplefilter("always")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if hasattr(self, "found") and not self.counts:
            torch.cuda.set_sync_debug_mode("default")
            self.caught.__exit__(None, None, None)
            self.counts.append(sum("synchroniz" in str(one.message) for one in self.found))


def test_a_step_of_lightning_waits_three_times_at_most(tmp_path: Path) -> None:
    waits = Waits()
    options = ("strategy.precision=bf16-mixed", "strategy.batch_size_per_device=4", "trainer.log_every_steps=50")
    run(tmp_path, *ON_GPU, *options, "optimizer.steps=4", callbacks=[waits])
    assert waits.counts
    assert waits.counts[0] <= 3


def test_mixed_precision_with_the_scaler(tmp_path: Path) -> None:
    run(tmp_path, *ON_GPU, "strategy.precision=16-mixed", "optimizer.clip_norm=1.0", "optimizer.ema_decay=0.9")
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["MixedPrecision"]["scale"] > 0
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


class AverageLies(Callback):
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks: list[Callback] = vars(trainer)["callbacks"]
        (average,) = (callback for callback in callbacks if isinstance(callback, MovingAverage))
        self.devices = {value.device.type for value in average._average.values()}


def test_the_moving_average_lies_on_the_gpu(tmp_path: Path) -> None:
    where = AverageLies()
    run(tmp_path, *ON_GPU, "strategy.precision=32-true", "optimizer.ema_decay=0.9", callbacks=[where])
    assert where.devices == {"cuda"}


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_a_run_goes_on_bit_for_bit(tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = kmax.config.build.build_trainer
    monkeypatch.setattr(train, "build_trainer", lambda config: original(config, deterministic=True))
    options = (*ON_GPU, f"strategy.precision={precision}", "optimizer.ema_decay=0.5")
    try:
        run(tmp_path / "whole", *options)
        with pytest.raises(Interrupt):
            run(tmp_path / "killed", *options, callbacks=[At("on_train_batch_start", 6, interrupt)])
        run(tmp_path / "killed", *options)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_state(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_compiled(tmp_path: Path) -> None:
    run(tmp_path, *ON_GPU, "strategy.precision=bf16-mixed", "strategy.compile=true", "backbone.checkpointing=true")
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


@pytest.mark.usefixtures("_exact")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 5e-3)])
def test_synchronized_norms_over_nccl(
    dtype: torch.dtype, tolerance: float, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rank that exchanges with itself equals PyTorch's own layer: output, gradients and statistics."""
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        results = []
        for ranks in (2, 1):
            monkeypatch.setattr(SyncBatchNorm, "min_ranks", ranks)
            torch.manual_seed(0)
            norm = synchronize(nn.BatchNorm2d(32)).to(CUDA)
            x = (3 * torch.randn(4, 32, 17, 19, device=CUDA) + 1).to(dtype)
            x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
            x.requires_grad_()
            weight = torch.randn_like(x)
            y = norm(x)
            (y * weight).sum().backward()
            results.append([y, x.grad, *(p.grad for p in norm.parameters()), *norm.buffers()])
        for ours, theirs in zip(*reversed(results), strict=True):
            scale = float(theirs.double().abs().max())
            torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=tolerance * scale)
    finally:
        dist.destroy_process_group()


def test_a_run_under_ddp_over_nccl(tmp_path: Path) -> None:
    run(tmp_path, *ON_GPU, "strategy.strategy=ddp", "strategy.precision=bf16-mixed", "strategy.sync_batchnorm=true")
    assert (tmp_path / "checkpoints/last.ckpt").is_file()

"""Training steps and inference on the device at hand, for benchmark.py.

Letters: B batch, H×W image size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from kmax.config.build import build_datamodule, build_model
from kmax.config.trained import load_trained
from kmax.geometry import Sizes
from kmax.inference.options import Thresholds
from kmax.inference.postprocess import panoptic
from kmax.inference.preprocess import normalize
from kmax.losses import Criterion
from kmax.metrics import PanopticQuality
from kmax.model import KMaXDeepLab
from kmax.optim import parameter_groups
from kmax.predict.predictor import Predictor
from kmax.predict.runtime import DTYPES, prepare
from kmax.strategy.counters import DeviceCounter
from kmax.strategy.sync_norm import SyncBatchNorm, synchronize
from kmax.structures import Batch, Target

PHASES = ("data", "forward", "criterion", "backward", "optimizer")
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """A training step: an experiment's model at a `size` (H, W), and how it is run."""

    experiment: str | None
    size: tuple[int, int]
    batch: int = 2
    precision: str = "fp32"
    compiled: bool = False
    channels_last: bool = True
    sync_norm: bool = False
    recompute: bool = False
    overrides: tuple[str, ...] = ()


def gpu_settings() -> Iterator[Setting]:
    """The most informative settings first: the experiments at their precisions, then one switch at a time, then large
    ones."""
    r50 = "coco_resnet50"
    for precision in ("fp16", "bf16", "fp32"):
        yield Setting(r50, (641, 641), precision=precision)
    yield Setting(r50, (1281, 1281), precision="fp16")
    yield Setting(r50, (1281, 1281), precision="fp16", recompute=True)
    yield Setting(r50, (641, 641), precision="fp16", channels_last=False)
    yield Setting(r50, (641, 641), precision="fp16", sync_norm=True)
    yield Setting(r50, (641, 641), batch=8, precision="fp16")
    for size in ((641, 641), (1281, 1281)):
        yield Setting("coco_convnext_tiny", size, precision="fp16")
        yield Setting("coco_convnext_large", size, precision="fp16")
    yield Setting("cityscapes_resnet50", (1025, 2049), batch=1, precision="fp16")
    yield Setting("cityscapes_convnext_large", (1025, 2049), batch=1, precision="fp16", recompute=True)
    yield Setting(r50, (641, 641), precision="fp16", compiled=True)


def cpu_settings() -> Iterator[Setting]:
    """Small enough for two cores."""
    for options in ({}, {"channels_last": False}, {"precision": "bf16"}, {"sync_norm": True}, {"recompute": True}):
        yield Setting("coco_resnet50", (257, 257), **options)


def quick_settings(overrides: tuple[str, ...]) -> Iterator[Setting]:
    """A model that runs in seconds, for tests of this script."""
    yield Setting(None, (65, 65), overrides=overrides)
    yield Setting(None, (65, 65), overrides=overrides, precision="bf16", recompute=True, sync_norm=True)


class Step:
    """A training step in phases."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        self.setting, self.device = setting, device
        again = f"{setting.recompute}".lower()
        options = (f"model.checkpointing={again}", f"backbone.checkpointing={again}", *setting.overrides)
        model = build_model(setting.experiment, *options).train().to(device)
        if setting.channels_last:
            model.to(memory_format=torch.channels_last)
        self.model: nn.Module = synchronize(model) if setting.sync_norm else model
        if setting.compiled:
            self.model.compile()
        assert isinstance(model, KMaXDeepLab), "the experiments measured here are those of kMaX-DeepLab"
        last = model.transformer_decoder.predictor.class_logits
        assert isinstance(last, nn.Conv1d), "class logits come from a convolution over queries"
        self.classes = last.out_channels - 1
        self.criterion = Criterion(self.classes)
        groups = parameter_groups(model, 1e-5, 0.05)
        self.optimizer = torch.optim.AdamW(groups, fused=device.type in ("cpu", "cuda"))
        self.scaler = torch.amp.GradScaler(device.type, enabled=setting.precision == "fp16")
        self.batch = random_batch(setting.batch, setting.size, self.classes, pinned=device.type == "cuda")

    def __call__(self, phase: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()) -> None:
        """Run it; `phase` is entered around each of `PHASES`."""
        dtype = DTYPES[self.setting.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            with phase("data"):
                batch = self.batch.to(self.device, non_blocking=True)
                images = normalize(batch.images, batch.valid)
            with phase("forward"):
                output = self.model(images)
            with phase("criterion"):
                loss = self.criterion(output, batch.targets).total
        with phase("backward"):
            self.scaler.scale(loss).backward()
        with phase("optimizer"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()


def random_batch(batch: int, size: tuple[int, int], classes: int, pinned: bool) -> Batch:
    """Noise, with twenty segments in stripes at stride 4."""
    cells = tuple(-(-side // 4) for side in size)
    stripes = (torch.arange(cells[0]) * 20 // cells[0])[:, None].expand(cells).contiguous()
    targets = tuple(Target(stripes, torch.randint(classes, (20,))) for _ in range(batch))
    images = torch.randint(256, (batch, 3, *size), dtype=torch.uint8)
    made = Batch(images, torch.ones(batch, *size, dtype=torch.bool), targets)
    return made.pin_memory() if pinned else made


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def exchanging(device: torch.device) -> Iterator[None]:
    """A process group of one process, in which synchronized norms still exchange their statistics."""
    store = dist.HashStore()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=0, world_size=1)
    SyncBatchNorm.min_ranks = 1
    try:
        yield
    finally:
        SyncBatchNorm.min_ranks = 2
        dist.destroy_process_group()


def measure_step(setting: Setting, device: torch.device, repetitions: int = 5) -> Row:
    """Images per second, phases in milliseconds, peak memory, waits and launches of a step; or the error."""
    row: Row = {**asdict(setting), "size": list(setting.size), "experiment": setting.experiment or "tiny"}
    try:
        with exchanging(device) if setting.sync_norm else nullcontext():
            return row | _measured(Step(setting, device), repetitions)
    except torch.OutOfMemoryError:
        return row | {"error": "out of memory"}


def _measured(step: Step, repetitions: int) -> Row:
    device, milliseconds = step.device, dict.fromkeys(PHASES, 0.0)
    for _ in range(3 if device.type == "cuda" else 1):  # cuDNN chooses algorithms, the compiler compiles
        step()
    wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    for _ in range(repetitions):
        step()
    wait(device)
    seconds = (time.perf_counter() - start) / repetitions

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        wait(device)
        milliseconds[name] += 1000 * (time.perf_counter() - begin) / repetitions

    for _ in range(repetitions):
        step(phase)
    result: Row = {"images_per_s": step.setting.batch / seconds, "ms": milliseconds}
    if device.type == "cuda":
        result["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    if not step.setting.compiled:
        with DeviceCounter(host="cpu" if device.type == "cuda" else "none") as counter:
            step()
        result |= {"launches": counter.launches, "waits": counter.waits if device.type == "cuda" else None}
    return result


def measure_inference(
    experiment: str | None, size: tuple[int, int], device: torch.device, runtime: str, precision: str, *overrides: str
) -> Row:
    """Images per second of the network for one image at a time, and milliseconds of post-processing."""
    model = build_model(experiment, *overrides).eval()
    network = prepare(model, size, device, runtime, precision)
    images = torch.randn(1, 3, *size, device=device)
    with torch.inference_mode():
        forward = _seconds(lambda: network(images, coarse=False), device)
        final = network(images, coarse=False).predictions[-1]
    classes, masks = final.class_logits[0], final.mask_logits[0] * 10
    things = [label % 2 == 0 for label in range(classes.shape[1] - 1)]
    sizes = Sizes.fit(size, size)
    after = _seconds(lambda: panoptic(classes, masks, things, Thresholds(), sizes), device)
    about: Row = {"experiment": experiment or "tiny", "size": list(size), "runtime": runtime, "precision": precision}
    return about | {"images_per_s": 1 / forward, "postprocess_ms": 1000 * after}


def _seconds(function: Callable[[], object], device: torch.device, repetitions: int = 5) -> float:
    for _ in range(2):
        function()
    wait(device)
    start = time.perf_counter()
    for _ in range(repetitions):
        function()
    wait(device)
    return (time.perf_counter() - start) / repetitions


def measure_precision(ckpt: Path, device: torch.device, limit: int | None = None) -> list[Row]:
    """PQ of a trained checkpoint on its validation images, in each precision."""
    trained = load_trained(ckpt)
    dataset = build_datamodule(trained.options, trained.categories).val()
    rows: list[Row] = []
    for precision in DTYPES:
        predictor = Predictor.from_checkpoint(ckpt, device, precision=precision)
        metric = PanopticQuality(predictor.categories.is_thing)
        for index in range(min(len(dataset), limit or len(dataset))):
            sample = dataset[index]
            metric.update([predictor(sample.image)], [sample])
        rows.append({"ckpt": str(ckpt), "precision": precision, "pq": metric.compute().all.pq})
    return rows

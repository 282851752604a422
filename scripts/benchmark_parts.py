"""The costly parts on a CPU, relative to a reference timed in the same run, for benchmark.py."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor

from kmax import build_model
from kmax.data import CocoPanoptic
from kmax.data.loader import single_threaded
from kmax.data.options import DatasetOptions
from kmax.data.training import TrainingSet
from kmax.geometry import Sizes
from kmax.inference.options import Thresholds
from kmax.inference.postprocess import panoptic
from kmax.losses import Criterion, instance_discrimination, mask
from kmax.metrics import PanopticQuality
from kmax.strategy.hardware import keep_freed_memory
from kmax.structures import Output, PanopticMap, Prediction, Sample, Segment, Target


@dataclass(frozen=True)
class Benchmark:
    """`step` is timed; `allowance` bytes (gradients, results) are subtracted from its memory. Its time is divided by
    that of `reference`, whose plural is `unit`. `clock` may count the time of one core instead."""

    title: str
    step: Callable[[], object]
    allowance: int = 0
    reference: Callable[[], object] | None = None
    unit: str = "products of 2048³"
    clock: Callable[[], float] = time.perf_counter


def blobs(batch: int, size: int, segments: int, num_classes: int) -> list[Target]:
    """Targets of `segments` discs of falling size, about a tenth of the pixels void."""
    rows = torch.arange(size)
    targets = []
    for _ in range(batch):
        segment_map = torch.zeros(size, size, dtype=torch.int64)
        for segment in range(1, segments):
            center, radius = torch.randint(size, (2,)), size / (2 + segment)
            distance = (rows[:, None] - center[0]) ** 2 + (rows[None] - center[1]) ** 2
            segment_map[distance < radius**2] = segment
        segment_map[: size // 10] = -1
        ids, compact = segment_map.unique(return_inverse=True)  # −1 comes first
        targets.append(Target(compact - 1, torch.randint(num_classes, (len(ids) - 1,))))
    return targets


def criterion(size: int = 321, batch: int = 2, queries: int = 128, num_classes: int = 133) -> Benchmark:
    """Forward and backward pass of all losses: seven predictions, 4096 drawn pixels, as in training on COCO; memory is
    kept as `train.py` keeps it on a CPU."""
    keep_freed_memory()

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape).requires_grad_()

    def prediction() -> Prediction:
        feature = torch.nn.functional.normalize(torch.randn(batch, 128, size, size), dim=1).requires_grad_()
        return Prediction(leaf(batch, queries, num_classes + 1), leaf(batch, queries, size, size), feature)

    output = Output(tuple(prediction() for _ in range(7)), leaf(batch, num_classes + 1, size, size))
    leaves = [tensor for prediction in output.predictions for tensor in prediction]
    if output.semantic_logits is not None:
        leaves.append(output.semantic_logits)
    targets = blobs(batch, size, 20, num_classes)
    losses = Criterion(num_classes)

    def step() -> None:
        for tensor in leaves:
            tensor.grad = None
        losses(output, targets).total.backward()

    gradients = sum(tensor.numel() * tensor.element_size() for tensor in leaves)
    return Benchmark(f"criterion, 7 predictions of {batch} × {queries} × {size} × {size}", step, gradients)


class _DefinedSoftmax:
    apply = staticmethod(mask.owned_softmax)


class _DefinedContrast:
    @staticmethod
    def apply(features: Tensor, group: Tensor, groups: int, temperature: float) -> Tensor:
        images = zip(features, group, strict=True)
        return torch.stack([instance_discrimination.contrast(*image, temperature) for image in images])


def by_definition(size: int) -> Benchmark:
    """The criterion with contrast and softmax over queries as `kmax.losses` defines them, against itself."""
    fast = criterion(size, batch=1)

    def step() -> None:
        with (
            patch.object(mask, "OwnedSoftmax", _DefinedSoftmax),
            patch.object(instance_discrimination, "Contrast", _DefinedContrast),
        ):
            fast.step()

    title = f"plain definitions, 7 predictions of 1 × 128 × {size} × {size}"
    return Benchmark(title, step, fast.allowance, fast.step, "times the criterion")


def postprocess(size: int = 321, result: int = 1281, queries: int = 128, num_classes: int = 133) -> Benchmark:
    """From the logits of an image, smooth blobs and noise, to its panoptic map of `result`²."""
    blobs = torch.nn.functional.interpolate(12 * torch.randn(1, queries, 6, 6), (size, size), mode="bicubic")
    mask_logits = blobs[0] + torch.randn(queries, size, size) / 2
    class_logits = 6 * torch.randn(queries, num_classes + 1)
    is_thing = [label < 80 for label in range(num_classes)]
    sizes = Sizes.fit((result, result), (result, result))

    def step() -> None:
        panoptic(class_logits, mask_logits, is_thing, Thresholds(), sizes)

    return Benchmark(f"post-processing, {queries} × {size} × {size} to {result} × {result}", step)


def training_step(size: int = 257, batch: int = 2) -> Benchmark:
    """A whole step of `coco_resnet50`, optimizer included, against one of torchvision's ResNet-50 classifier; both
    with what `train.py` uses on a CPU."""
    keep_freed_memory()
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    targets = blobs(batch, -(-size // 4), 10, 133)
    labels = torch.randint(1000, (batch,))
    model, losses = build_model("coco_resnet50").train(), Criterion(133)
    classifier = torchvision.models.resnet50().train()
    for network in (model, classifier):
        network.to(memory_format=torch.channels_last)
    ours, theirs = (torch.optim.AdamW(network.parameters(), 1e-5, fused=True) for network in (model, classifier))

    def step() -> None:
        losses(model(images), targets).total.backward()
        ours.step()
        ours.zero_grad()

    def reference() -> None:
        torch.nn.functional.cross_entropy(classifier(images), labels).backward()
        theirs.step()
        theirs.zero_grad()

    title = f"training step of coco_resnet50, {batch} × {size} × {size}"
    return Benchmark(title, step, reference=reference, unit="steps of a ResNet-50 classifier")


def training_input(size: int = 1281, draws: int = 100) -> Benchmark:
    """Training images on one core: decode, crop and resize, color jitter, copy-paste, targets.

    Raises:
        FileNotFoundError: there are no files of COCO; `KMAX_SAMPLE_DATA` names a folder with `coco128/`.
    """
    root = Path(os.environ.get("KMAX_SAMPLE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "coco128"
    folder = root / "annotations" / "panoptic_train2017"
    dataset = CocoPanoptic(root / "train2017", folder, folder.with_suffix(".json"))
    training = TrainingSet(
        dataset, DatasetOptions(size=(size, size), scale=(0.2, 2.0)), seed=0, min_labeled_pixels=4096
    )
    files = [file.read_bytes() for file in sorted((root / "train2017").iterdir())[:draws]]
    single_threaded()

    def step() -> None:
        for index in range(draws):
            training[0, index]

    def decode() -> None:
        for content in files:
            Image.open(io.BytesIO(content)).load()

    title = f"input, {draws} training images of {size} × {size} from COCO"
    return Benchmark(title, step, reference=decode, unit=f"× PIL decoding {draws} JPEG", clock=time.thread_time)


def panoptic_quality(images: int = 100, segments: int = 30, num_classes: int = 133) -> Benchmark:
    """Counting the segments of images of 640 × 480 on one core."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    corners = rng.uniform(0, 480, (segments, 2))
    nearest = np.stack([np.hypot(y - row, x - 1.3 * column) for row, column in corners]).argmin(0).astype(np.int32)
    table = tuple(Segment(i + 1, int(label)) for i, label in enumerate(rng.integers(0, num_classes, segments)))
    truth = Sample(np.zeros((480, 640, 3), np.uint8), nearest + 1, table, 0)
    moved = np.where(rng.random(nearest.shape) < 0.01, 0, np.roll(nearest, (2, 3), (0, 1)))
    prediction = PanopticMap(torch.as_tensor(moved + 1), table)
    metric = PanopticQuality([label < 80 for label in range(num_classes)])

    def step() -> None:
        for _ in range(images):
            metric.update([prediction], [truth])

    return Benchmark(f"panoptic quality, {images} images of 640 × 480", step, clock=time.thread_time)


_DEFINITION = "definition_"
BENCHMARKS: dict[str, Callable[[], Benchmark]] = {
    "input": training_input,
    "panoptic_quality": panoptic_quality,
    "postprocess": postprocess,
    "criterion": criterion,
    "training_step": training_step,
    **{f"{_DEFINITION}{size}": partial(by_definition, size) for size in (161, 321, 641)},
}
DEFAULT_BENCHMARKS = tuple(name for name in BENCHMARKS if not name.startswith(_DEFINITION))
"""What is measured unless a name is given: the definitions at 641² take a minute and a half."""


def best_time(step: Callable[[], object], repetitions: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of several calls."""
    best = math.inf
    for _ in range(repetitions):
        start = clock()
        step()
        best = min(best, clock() - start)
    return best


def memory(field: str) -> int:
    """Bytes of resident memory: `VmRSS` now, `VmHWM` at most; 0 where the system does not say (not Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


def give_back() -> None:
    """Return what earlier parts have freed to the system, where glibc is its library."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_memory(step: Callable[[], object]) -> int:
    """Bytes that resident memory rises by during `step`."""
    gc.collect()
    give_back()
    before = memory("VmRSS")
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # start the high-water mark anew
    step()
    return memory("VmHWM") - before


def parts(names: Sequence[str], repetitions: int) -> list[dict[str, object]]:
    """Measure the requested parts, one line each."""
    factors = torch.randn(2, 2048, 2048)
    rows: list[dict[str, object]] = []
    for name in BENCHMARKS:  # in this order: from the criterion on, they change how memory is handed back
        if name not in names:
            continue
        try:
            benchmark = BENCHMARKS[name]()
        except FileNotFoundError as error:
            print(f"{name}: left out. {error}")
            continue
        reference = benchmark.reference or (lambda: factors[0] @ factors[1])
        memory_used = peak_memory(benchmark.step) - benchmark.allowance  # in the first call, which also warms up
        unit = best_time(reference, 10, benchmark.clock)
        seconds = best_time(benchmark.step, repetitions, benchmark.clock)
        unit = min(unit, best_time(reference, 10, benchmark.clock))
        print(
            f"{benchmark.title}: {1000 * seconds:.0f} ms = {seconds / unit:.1f} {benchmark.unit} "
            f"({1000 * unit:.1f} ms each), "
            f"{memory_used / 1e9:.2f} GB above inputs and gradients",
            flush=True,
        )
        rows.append({"part": name, "seconds": seconds, "units": seconds / unit, "bytes": memory_used})
    return rows

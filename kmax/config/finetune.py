"""The options of `experiment=finetune` that follow from the images: length, crop, batch, rate and others.

Each number is an interpolation (`${finetune:steps}`) that depends on the options before it, so that any of them can be
set on the command line and the later ones follow: size → batch → rate, steps → warm-up, validation, average.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from omegaconf import DictConfig

EPOCHS = 60
LEAST_STEPS = 1500
VALIDATIONS = 20
SMALLEST, LARGEST, LARGEST_ON_CPU = 257, 641, 257  # sides of a crop
PUBLISHED_RATE, PUBLISHED_BATCH = 5e-4, 64
MOST_SAMPLES = 4096


@dataclass(frozen=True)
class DataFacts:
    """The images of a training set: how many, their classes, and the median of their longer sides in pixels."""

    images: int
    classes: int
    long_side: int


def data_facts(annotation_file: str | Path) -> DataFacts:
    """Facts about the images of a panoptic JSON in COCO's format.

    Raises:
        FileNotFoundError, ValueError: no such file, or no image in it.
    """
    path = Path(annotation_file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}: give the folder that prepare_own.py made, e.g. dataset.root=mydata."
        )
    return _read_facts(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read_facts(path: Path, _changed: int) -> DataFacts:
    try:
        content = json.loads(path.read_bytes())
        sides = [max(int(image["width"]), int(image["height"])) for image in content["images"]]
        classes = len(content["categories"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no panoptic JSON in COCO's format ({error!r}): make one with scripts/prepare_own.py."
        ) from error
    if not sides:
        raise ValueError(f"{path} lists no image: there is nothing to train on.")
    return DataFacts(len(sides), classes, round(median(sides)))


def crop_side(long_side: int, has_gpu: bool) -> int:
    """The side of a square crop: about the images' longer side, of the form 32k + 1, limited by the machine."""
    side = 32 * round((long_side - 1) / 32) + 1
    return max(SMALLEST, min(side, LARGEST if has_gpu else LARGEST_ON_CPU))


def steps_for(images: int, batch: int, epochs: float = EPOCHS) -> int:
    """Optimizer steps of `epochs` epochs over the images, at least `LEAST_STEPS`, in whole hundreds."""
    return max(LEAST_STEPS, 100 * math.ceil(epochs * images / batch / 100))


def rate_for(batch: int) -> float:
    """The learning rate of a batch: the published one times the square root of the batches' ratio, as suits Adam."""
    return float(f"{PUBLISHED_RATE * math.sqrt(batch / PUBLISHED_BATCH):.2g}")


def samples_for(size: tuple[int, int], stride: int) -> int:
    """Pixels that the losses draw from a crop: an eighth of its cells, at most the published number."""
    cells = -(-size[0] // stride) * -(-size[1] // stride)
    return max(64, min(MOST_SAMPLES, cells // 8))


def value(key: str, *, _root_: DictConfig) -> object:
    """The resolver `finetune`: one of the numbers that follow from the data and from the other options.

    Raises:
        FileNotFoundError, ValueError: as `data_facts`.
    """
    import torch

    dataset, optimizer = _root_.dataset, _root_.optimizer
    if key == "name":
        return f"finetune_{Path(str(dataset.root)).expanduser().resolve().name or 'data'}"
    if key == "size":
        side = crop_side(data_facts(dataset.train.annotation_file).long_side, torch.cuda.is_available())
        return [side, side]
    if key == "batch_size":
        images = data_facts(dataset.train.annotation_file).images
        return max(2, min(8 if torch.cuda.is_available() else 4, images))
    if key == "steps":
        return steps_for(data_facts(dataset.train.annotation_file).images, dataset.batch_size)
    if key == "lr":
        return rate_for(dataset.batch_size)
    if key == "warmup_steps":
        return min(500, optimizer.steps // 20)
    if key == "val_every_steps":
        return max(1, optimizer.steps // VALIDATIONS)
    if key == "ema_decay":
        return round(1 - min(0.01, 10 / optimizer.steps), 5)  # the average spans a tenth of the run
    if key == "samples":
        return samples_for((dataset.size[0], dataset.size[1]), dataset.target_stride)
    raise ValueError(f"${{finetune:{key}}} is unknown.")


def plan_text(options: Any) -> str:
    """The plan that is printed before a fine-tuning starts."""
    dataset, optimizer = options.dataset, options.optimizer
    facts = data_facts(dataset.train["annotation_file"])
    epochs = optimizer.steps * dataset.batch_size / facts.images
    frozen = options.backbone.freeze
    parts = [
        f"{facts.images} images, {facts.classes} classes, crops of {dataset.size[0]}×{dataset.size[1]}",
        f"batch {dataset.batch_size}, {optimizer.steps} steps ({epochs:.0f} epochs), rate {optimizer.lr:g}",
        f"validation every {options.trainer.val_every_steps} steps",
    ]
    if frozen not in (0, "none"):
        parts.append("the backbone is frozen" if frozen == "all" else f"its first {frozen} stages are frozen")
    return "Fine-tuning: " + " · ".join(parts)

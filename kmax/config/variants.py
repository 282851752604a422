"""Which of two ResNets a published checkpoint has, where names and shapes are the same.

COCONut's code trains with Detectron2's ResNet-50 or with deeplab2's (no pool after the stem, sums before the
activation). Its files do not say which, and the wrong one silently gives wrong numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kmax.checkpoint.published import Published
from kmax.checkpoint.recognize import Recognized
from kmax.config.build import model_from_options
from kmax.config.options import TrainOptions
from kmax.images import open_image, resize_and_pad
from kmax.inference.preprocess import normalize

VARIANTS = ("detectron2", "deeplab2")
SIZE = (641, 641)
"""Size that images are fitted into; the statistics depend little on it."""
MOST_IMAGES = 16
FIRST_STAGE = "layer1."
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class AmbiguousError(ValueError):
    """Names and shapes leave a choice open; the message names the options."""

    def __init__(self, source: Path, entry: Published | None) -> None:
        command = f"--download {entry.name}" if entry else f"{source} TARGET"
        super().__init__(
            f"{entry.name if entry else source} may have the ResNet of either code, which its names do not tell: "
            f"python scripts/convert_weights.py {command} with --resnet {' or --resnet '.join(VARIANTS)}, or with "
            "--images FOLDER (a few photographs) to have both compared."
        )


def choose_variant(
    options: TrainOptions,
    recognized: Recognized,
    source: Path,
    told: str | None,
    images: Path | None,
    entry: Published | None,
) -> tuple[str | None, tuple[str, ...]]:
    """The option `backbone.family` if names do not determine it, and a sentence on what was assumed.

    Raises:
        AmbiguousError: it is not given, and the checkpoint may have either.
        ValueError: it is given for a checkpoint without a choice; no image to compare on.
    """
    resnet = recognized.family == "detectron2" and recognized.backbone.startswith("resnet")
    open_choice = resnet and not recognized.model.get("stem_stage")
    if not open_choice:
        if told or images:
            raise ValueError(f"{source} is {recognized}: its names leave no choice of a ResNet, so leave it out.")
        return None, ()
    if told:
        reason = "as told"
    elif images:
        distances = {variant: _distance(options, recognized, variant, images) for variant in VARIANTS}
        told = min(distances, key=lambda variant: distances[variant])
        measured = ", ".join(f"{variant} {distance:.3f}" for variant, distance in distances.items())
        reason = f"its batch-norm statistics are nearest to those of the images ({measured})"
    elif (entry is not None and entry.variants) or "coconut" in source.name.lower():
        raise AmbiguousError(source, entry)
    else:
        told, reason = VARIANTS[0], "as in all published files but COCONut's; --resnet deeplab2 takes the other"
    return None if told == recognized.family else told, (f"the ResNet is {told}'s: {reason}",)


def _distance(options: TrainOptions, recognized: Recognized, variant: str, images: Path) -> float:
    """How far a backbone's activations are from those that it was trained with.

    A batch norm keeps mean and variance of what it saw in training. The distance is |mean on the images − kept mean|
    in kept standard deviations, averaged over the channels of each norm and over the norms of the first stage: the two
    ResNets differ after the stem, where one pools and the other does not.
    """
    with torch.device("meta"):
        model = model_from_options(
            replace(options.backbone, family=variant), options.model, recognized.categories.num_classes
        )
    start = "backbone."
    weights = {name[len(start) :]: value for name, value in recognized.state.items() if name.startswith(start)}
    backbone = model.backbone.eval()
    backbone.load_state_dict(weights, assign=True)
    norms = [module for name, module in backbone.named_modules() if FIRST_STAGE in name]
    return statistics_distance(backbone, [norm for norm in norms if isinstance(norm, nn.BatchNorm2d)], batch_of(images))


@torch.no_grad()
def statistics_distance(network: nn.Module, norms: Sequence[nn.BatchNorm2d], images: Tensor) -> float:
    """The distance between the statistics of normalized images (B, 3, H, W) in the batch norms and the stored ones."""
    found: list[float] = []

    def compare(norm: nn.BatchNorm2d, arguments: tuple[Tensor, ...]) -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        means = arguments[0].mean((0, 2, 3))  # (C,)
        found.append(float(((means - norm.running_mean).abs() / (norm.running_var + norm.eps).sqrt()).mean()))

    hooks = [norm.register_forward_pre_hook(compare) for norm in norms]
    network(images)
    for hook in hooks:
        hook.remove()
    return float(np.mean(found))


def batch_of(images: Path) -> Tensor:
    """The first images of a folder, or one image, as a normalized batch (B, 3, H, W).

    Raises:
        ValueError: there is none, or one that cannot be read.
    """
    files = [images] if images.is_file() else sorted(f for f in images.glob("*") if f.suffix.lower() in _SUFFIXES)
    if not files:
        raise ValueError(f"There is no image in {images} to compare on: name a folder with a few photographs.")
    padded, valid = zip(*(resize_and_pad(open_image(file), SIZE) for file in islice(files, MOST_IMAGES)), strict=True)
    pixels = torch.as_tensor(np.stack(padded)).permute(0, 3, 1, 2)  # (B, H, W, 3) → (B, 3, H, W)
    return normalize(pixels, torch.as_tensor(np.stack(valid)))

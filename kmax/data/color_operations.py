"""The color operations of MaX-DeepLab-L's training: one of five sequences, found by AutoAugment (arXiv 1805.09501).

Each operation of a sequence has its own probability. `strength` is Pillow's factor (1 changes nothing); for `solarize`
it is the value above which colors are inverted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


class Operation(NamedTuple):
    """One operation: its name, strength and probability."""

    name: str
    strength: float
    probability: float


SEQUENCES: tuple[tuple[Operation, ...], ...] = (
    (Operation("sharpness", 1.36, 0.4), Operation("brightness", 1.9, 0.2)),
    (Operation("contrast", 1.9, 0.2),),
    (Operation("sharpness", 1.72, 0.2), Operation("color", 1.72, 0.2)),
    (Operation("solarize", 179, 0.2), Operation("equalize", 1, 0.6)),
    (Operation("sharpness", 0.28, 0.2), Operation("equalize", 1, 0.2)),
)
_OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "solarize": lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    "equalize": lambda image, _: ImageOps.equalize(image),
}


def operate_on_color(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the five sequences, all equally likely, on (H, W, 3) uint8 RGB → the same."""
    sequence = SEQUENCES[int(rng.integers(len(SEQUENCES)))]
    chosen = [operation for operation in sequence if rng.random() < operation.probability]
    edited = Image.fromarray(image) if chosen else None
    for operation in chosen:
        assert edited is not None, "something is chosen"
        edited = _OPERATIONS[operation.name](edited, operation.strength)
    return image if edited is None else np.asarray(edited)

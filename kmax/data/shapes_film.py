"""A film of drawn shapes that move, with its ground truth: for tracking.

In a film six things move before the textures of `ShapesDataset`: two of one kind cross, two of different kinds cross,
one leaves the image and returns, one stays where it is and turns. Things are painted in a fixed order, so those that
cross hide each other. Kinds, colors, sizes and textures follow from the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kmax.categories import Categories, load_categories
from kmax.data.shapes import THINGS, Canvas, bright_color, draw_stuff, shape_mask
from kmax.structures import Sample

_NOISE = 6  # standard deviation, as in the images of shapes

_PATHS: tuple[Callable[[float], tuple[float, float]], ...] = (  # center in fractions of the image, time 0 … 1
    lambda t: (0.14 + 0.72 * t, 0.22),  # two of one kind that cross
    lambda t: (0.86 - 0.72 * t, 0.28),
    lambda t: (0.16 + 0.46 * t, 0.86 - 0.3 * t),  # two of different kinds that cross
    lambda t: (0.62 - 0.46 * t, 0.82 - 0.24 * t),
    lambda t: (0.76 + 0.56 * math.sin(math.pi * t), 0.52),  # leaves on the right and returns
    lambda t: (0.86, 0.84),  # stays
)


@dataclass(frozen=True)
class _Actor:
    """A thing of the film: its kind and color, its radius as a fraction of the shorter side, and how it turns."""

    kind: str
    color: np.ndarray
    radius: float
    angle: float
    turn: float


class ShapesFilm:
    """The frames of a film, each a `Sample`; a segment has the same id in all frames in which it is visible.

    Args:
        length: number of frames.
        seed: films of different seeds have nothing in common but the paths.
        size: height and width in pixels.
    """

    def __init__(self, length: int = 60, seed: int = 0, size: tuple[int, int] = (144, 176)) -> None:
        if length < 2 or min(size) < 64:
            raise ValueError("ShapesFilm needs length >= 2 and at least 64 pixels a side.")
        self.length, self.seed, self.size = length, seed, size
        self.categories: Categories = load_categories("shapes")
        rng = np.random.default_rng([self.seed, 1])
        one, other, third, fourth, fifth = (THINGS[i] for i in rng.permutation(len(THINGS))[:5])
        self._actors = [
            _Actor(kind, bright_color(kind, rng), rng.uniform(0.1, 0.14), rng.uniform(0, 2 * math.pi), rng.normal(0, 2))
            for kind in (one, one, other, third, fourth, fifth)
        ]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        canvas = Canvas(np.random.default_rng([self.seed, 2]), np.array(self.size))
        draw_stuff(canvas)
        noise, time = np.random.default_rng([self.seed, 3, index]), index / (self.length - 1)
        for actor, path in zip(self._actors, _PATHS, strict=True):
            x, y = path(time)
            center, radius = (x * canvas.width, y * canvas.height), actor.radius * canvas.short
            mask = shape_mask(actor.kind, self.size, center, radius, actor.angle + actor.turn * time)
            grain = noise.normal(0, _NOISE, (*self.size, 1))
            canvas.paint(mask, np.clip(actor.color + grain, 0, 255).astype(np.uint8), canvas.new_segment(actor.kind))
        segments = canvas.segments(self.categories)
        kept = np.isin(canvas.segment_map, [segment.id for segment in segments])
        segment_map = np.where(kept, canvas.segment_map, 0).astype(np.int32)
        return Sample(canvas.image, segment_map, segments, index, f"{index:06d}.png")

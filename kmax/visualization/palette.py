"""Colors: of segments, of clusters, of numbers between 0 and 1."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Sequence

import numpy as np

from kmax.categories import Categories
from kmax.structures import Segment

Color = tuple[int, int, int]
INK, PAPER, MUTED = (40, 40, 40), (255, 255, 255), (130, 130, 130)
VOID_COLOR: Color = (72, 72, 72)
"""Of pixels without a segment: neutral, and lighter than the black of an image."""
_GOLDEN = 0.618033988749895  # multiples of the golden ratio, modulo 1, keep away from each other
_HEAT = np.array([(18, 12, 60), (72, 20, 120), (160, 40, 120), (226, 84, 80), (252, 160, 70), (252, 244, 180)], float)


def segment_colors(segments: Sequence[Segment], categories: Categories, identities: bool = False) -> dict[int, Color]:
    """A color for every segment id: its class's color, varied from one thing to the next.

    Args:
        identities: ids stay from frame to frame; the shade of a thing follows from its id, so that it stays as well.
    """
    seen: Counter[int] = Counter()
    colors = {}
    for segment in segments:
        category = categories.classes[segment.label]
        number = segment.id if identities else seen[segment.label]
        colors[segment.id] = _vary(category.color, number) if category.is_thing else category.color
        seen[segment.label] += 1
    return colors


def _vary(color: Color, number: int) -> Color:
    """The color itself for number 0, then darker, paler and with a little more or less hue; after 84 they repeat."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in color))
    hue += (0, 0.025, -0.025, 0.0125, -0.0125, 0.0375, -0.0375)[number % 7]
    saturation *= (1, 0.55, 0.8)[number % 3]
    value = min(1.0, max(0.3, value)) * (1, 0.7, 0.85, 0.55)[number % 4]
    return color if number == 0 else _rgb(hue, saturation, value)


def _rgb(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def cluster_color(query: int) -> Color:
    """One fixed color per query."""
    return _rgb(query * _GOLDEN, (0.85, 0.5, 0.65)[query % 3], (0.95, 0.8, 0.6)[query // 3 % 3])


def heat(values: np.ndarray) -> np.ndarray:
    """Numbers in 0 … 1 (…) as colors (…, 3) uint8, from dark violet to pale yellow."""
    position = np.clip(values, 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(position.astype(int), len(_HEAT) - 2)
    part = (position - low)[..., None]
    color: np.ndarray = (_HEAT[low] * (1 - part) + _HEAT[low + 1] * part).round().astype(np.uint8)
    return color

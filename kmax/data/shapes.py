"""A panoptic dataset drawn on the fly: six kinds of things in front of four textures.

A kind of thing tends to a color of its own, but its neighbors on the color circle overlap with it, so that shape
must decide. Every image is determined by (seed, index). Things overlap, some are small, some are so dense that they
form one crowd; parts of some images are void.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from kmax.categories import Categories, load_categories
from kmax.structures import Sample, Segment

THINGS = ("circle", "square", "triangle", "star", "ring", "cross")
TEXTURES = ("stripes", "checker", "dots", "waves")
_OVERSAMPLE = 4
_HUE_SPREAD = 0.06  # of the circle; kinds are 1/6 apart
_MIN_VISIBLE = 12  # pixels; things with fewer visible ones are not annotated


class ShapesDataset:
    """Drawn images.

    Args:
        length: number of images.
        seed: images of different seeds have nothing in common.
        min_size, max_size: bounds of height and width in pixels.
        max_things: most things in an image, not counting crowds.
        subset: use only this many images from the beginning.
    """

    def __init__(
        self,
        length: int = 1024,
        seed: int = 0,
        min_size: int = 96,
        max_size: int = 144,
        max_things: int = 6,
        categories: Categories | None = None,
        subset: int | None = None,
    ) -> None:
        if length < 1 or not 16 <= min_size <= max_size:
            raise ValueError("ShapesDataset needs length >= 1 and 16 <= min_size <= max_size.")
        self.length = length if subset is None else min(length, subset)
        self.seed, self.max_things = seed, max_things
        self.min_size, self.max_size = min_size, max_size
        self.categories = categories or load_categories("shapes")

    def __len__(self) -> int:
        return self.length

    @property
    def image_ids(self) -> list[int]:
        """One per image."""
        return list(range(self.length))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        canvas = Canvas(rng, rng.integers(self.min_size, self.max_size + 1, 2))
        draw_stuff(canvas)
        for _ in range(rng.integers(1, self.max_things + 1)):
            radius = canvas.short * (rng.uniform(0.05, 0.1) if rng.random() < 0.2 else rng.uniform(0.1, 0.26))
            canvas.add_thing(THINGS[rng.integers(len(THINGS))], canvas.random_point(), radius)
        if rng.random() < 0.1:
            _draw_crowd(canvas)
        if rng.random() < 0.15:
            _draw_void(canvas)
        segments = canvas.segments(self.categories)
        kept = np.isin(canvas.segment_map, [segment.id for segment in segments])
        segment_map = np.where(kept, canvas.segment_map, 0).astype(np.int32)
        return Sample(canvas.image, segment_map, segments, index, f"{index:06d}.png")


class Canvas:
    """An image in the making, with the class name and crowd flag of each segment id."""

    def __init__(self, rng: np.random.Generator, size: np.ndarray) -> None:
        self.rng = rng
        self.height, self.width = int(size[0]), int(size[1])
        self.short = min(self.height, self.width)
        self.image = np.zeros((self.height, self.width, 3), np.uint8)
        self.segment_map = np.zeros((self.height, self.width), np.int32)
        self.table: list[tuple[str, bool]] = []

    def random_point(self) -> tuple[float, float]:
        """A point (x, y) of the canvas, in pixels."""
        return self.rng.uniform(0, self.width), self.rng.uniform(0, self.height)

    def new_segment(self, name: str, crowd: bool = False) -> int:
        """The id of a further segment of class `name`."""
        self.table.append((name, crowd))
        return len(self.table)

    def paint(self, mask: np.ndarray, colors: np.ndarray, segment: int) -> None:
        """Cover `mask` (H, W) with one color or with an (H, W, 3) texture."""
        self.image[mask] = colors[mask] if colors.ndim == 3 else colors
        self.segment_map[mask] = segment

    def add_thing(self, name: str, center: tuple[float, float], radius: float, segment: int | None = None) -> None:
        """Draw a shape at `center` (x, y), its radius in pixels, as a segment of its own or as part of `segment`."""
        mask = shape_mask(name, (self.height, self.width), center, radius, self.rng.uniform(0, 2 * math.pi))
        noise = self.rng.normal(0, 6, (self.height, self.width, 1))
        color = np.clip(bright_color(name, self.rng) + noise, 0, 255).astype(np.uint8)
        self.paint(mask, color, self.new_segment(name) if segment is None else segment)

    def segments(self, categories: Categories) -> tuple[Segment, ...]:
        """The segments that remain visible."""
        area = np.bincount(self.segment_map.ravel(), minlength=len(self.table) + 1)
        return tuple(
            Segment(i, categories.names.index(name), crowd)
            for i, (name, crowd) in enumerate(self.table, 1)
            if area[i] >= _MIN_VISIBLE
        )


def bright_color(name: str, rng: np.random.Generator) -> np.ndarray:
    """A saturated RGB color (3,) whose hue scatters around that of the kind of thing."""
    hue = (THINGS.index(name) / len(THINGS) + rng.normal(0, _HUE_SPREAD)) % 1
    return 255 * np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.75, 1), rng.uniform(0.75, 1)))


def draw_stuff(canvas: Canvas) -> None:
    """One to three textures side by side, divided by straight lines."""
    rng = canvas.rng
    y, x = np.mgrid[: canvas.height, : canvas.width].astype(np.float32)
    names = rng.permutation(len(TEXTURES))[: rng.integers(1, 4)]
    for i, choice in enumerate(names):
        angle, offset = rng.uniform(0, 2 * math.pi), rng.uniform(-0.25, 0.25) * canvas.short
        side = (x - canvas.width / 2) * math.cos(angle) + (y - canvas.height / 2) * math.sin(angle) > offset
        mask = side if i else np.ones_like(side)
        name = TEXTURES[choice]
        canvas.paint(mask, _texture(name, x, y, rng), canvas.new_segment(name))


def _texture(name: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8: a muted color, modulated."""
    period, angle = rng.uniform(7, 11), rng.uniform(0, math.pi)
    u = (x * math.cos(angle) + y * math.sin(angle)) / period
    v = (-x * math.sin(angle) + y * math.cos(angle)) / period
    patterns: dict[str, Callable[[], np.ndarray]] = {
        "stripes": lambda: np.floor(u * 2) % 2,
        "checker": lambda: (np.floor(u * 1.5) + np.floor(v * 1.5)) % 2,
        "dots": lambda: ((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.1).astype(np.float32),
        "waves": lambda: 0.5 + 0.5 * np.sin(2 * math.pi * (u / 2 + 0.6 * np.sin(v))),
    }
    pattern = patterns[name]()
    base, contrast = rng.uniform(70, 150, 3), rng.uniform(40, 70)
    noisy = base + contrast * (pattern[..., None] - 0.5) + rng.normal(0, 6, (*x.shape, 1))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _draw_crowd(canvas: Canvas) -> None:
    """Many small things of one kind, annotated as one crowd segment."""
    rng = canvas.rng
    name, (cx, cy) = THINGS[rng.integers(len(THINGS))], canvas.random_point()
    segment = canvas.new_segment(name, crowd=True)
    spread, radius = 0.15 * canvas.short, max(2.5, 0.03 * canvas.short)
    for _ in range(rng.integers(6, 12)):
        canvas.add_thing(name, (rng.normal(cx, spread), rng.normal(cy, spread)), radius, segment)


def _draw_void(canvas: Canvas) -> None:
    """A gray patch that nobody annotated."""
    rng = canvas.rng
    mask = shape_mask("square", (canvas.height, canvas.width), canvas.random_point(), 0.15 * canvas.short, 0.0)
    canvas.paint(mask, np.full(3, rng.integers(40, 200), np.uint8), 0)


def shape_mask(
    name: str, size: tuple[int, int], center: tuple[float, float], radius: float, angle: float
) -> np.ndarray:
    """(H, W) bool: the pixels of a shape, drawn larger and reduced so that edges lie within half a pixel."""
    height, width = size
    left, top = max(0, math.floor(center[0] - radius)), max(0, math.floor(center[1] - radius))
    right, bottom = min(width, math.ceil(center[0] + radius)), min(height, math.ceil(center[1] + radius))
    mask = np.zeros(size, bool)
    if right <= left or bottom <= top:
        return mask
    s = _OVERSAMPLE
    patch = Image.new("L", ((right - left) * s, (bottom - top) * s))
    _draw(ImageDraw.Draw(patch), name, ((center[0] - left) * s, (center[1] - top) * s), radius * s, angle)
    mask[top:bottom, left:right] = np.asarray(patch.reduce(s)) > 127
    return mask


def _draw(pen: ImageDraw.ImageDraw, name: str, center: tuple[float, float], radius: float, angle: float) -> None:
    cx, cy = center
    if name in ("circle", "ring"):
        pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=255)
        if name == "ring":
            inner = 0.5 * radius
            pen.ellipse((cx - inner, cy - inner, cx + inner, cy + inner), fill=0)
        return
    points = _polygon(name)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = points @ rotation.T * radius + np.array([cx, cy])
    pen.polygon([(float(x), float(y)) for x, y in corners], fill=255)


def _polygon(name: str) -> np.ndarray:
    """Corners (n, 2) of a shape within the unit circle."""
    if name == "cross":
        a, b = 0.94, 0.3
        return np.array(
            [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)]
        )
    corners = {"triangle": 3, "square": 4, "star": 10}[name]
    angles = np.arange(corners) * 2 * math.pi / corners
    radii = np.where(np.arange(corners) % 2 == 1, 0.42, 1.0) if name == "star" else np.ones(corners)
    corners_at: np.ndarray = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
    return corners_at

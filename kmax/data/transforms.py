"""Augmentation of one sample: large-scale jitter, color jitter, crop and flip; resizing for evaluation.

All random numbers are drawn first, by `draw_window`; if an image shrinks, only the part inside the crop is then
resized. Letters: H×W size of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from kmax.data.segment_maps import present
from kmax.geometry import fit
from kmax.structures import Sample

_EPS = 1e-9  # so that 0.1 · 3 · 10 rounds down to 3


@dataclass(frozen=True)
class Window:
    """A resized size (height, width), and the crop (top, left, height, width) of it that is kept."""

    resized: tuple[int, int]
    crop: tuple[int, int, int, int]
    flip: bool


def draw_window(
    image_size: tuple[int, int],
    size: tuple[int, int],
    scale: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
    scale_step: float | None = None,
) -> Window:
    """Draw scale, position of the crop, and flip of an image, all uniformly.

    With `scale_step`, the scale is one of lowest, lowest + step, … highest; sizes are rounded down, first the
    size of the image fitted into the crop, then the scaled size (MaX-DeepLab).
    """
    if scale_step is None:
        s = rng.uniform(*scale)
        height, width = fit(image_size, (s * size[0], s * size[1]))
    else:
        s = scale[0] + scale_step * int(rng.integers(round((scale[1] - scale[0]) / scale_step) + 1))
        factor = min(size[0] / image_size[0], size[1] / image_size[1])
        height, width = (max(1, int(int(side * factor + _EPS) * s + _EPS)) for side in image_size)
    top = int(rng.integers(max(height - size[0], 0) + 1))
    left = int(rng.integers(max(width - size[1], 0) + 1))
    crop = (top, left, min(height, size[0]), min(width, size[1]))
    return Window((height, width), crop, bool(flip and rng.random() < 0.5))


def resize_image(image: np.ndarray, window: Window) -> np.ndarray:
    """The window of an image (h, w, 3), bilinear, with antialiasing if it shrinks.

    Equals resizing the whole and cropping, up to the rounding of the filter.
    """
    height, width = image.shape[:2]
    top, left, crop_height, crop_width = window.crop
    if window.resized[0] >= height and window.resized[1] >= width:
        whole = cv2.resize(image, window.resized[::-1], interpolation=cv2.INTER_LINEAR)
        resized = whole[top : top + crop_height, left : left + crop_width]
    else:
        y, x = height / window.resized[0], width / window.resized[1]
        box = (left * x, top * y, min((left + crop_width) * x, width), min((top + crop_height) * y, height))
        resized = np.asarray(Image.fromarray(image).resize((crop_width, crop_height), Image.Resampling.BILINEAR, box))
    return cv2.flip(resized, 1) if window.flip else resized


def resize_map(segment_map: np.ndarray, window: Window) -> np.ndarray:
    """The window of a map (h, w): the nearest pixel's value."""
    top, left, crop_height, crop_width = window.crop
    whole = cv2.resize(segment_map, window.resized[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    cut = whole[top : top + crop_height, left : left + crop_width]
    return cv2.flip(cut, 1) if window.flip else cut


def transform_sample(sample: Sample, window: Window) -> Sample:
    """Image (bilinear) and segment map (nearest) of a sample through a window; its table stays as it is."""
    return replace(sample, image=resize_image(sample.image, window), segment_map=resize_map(sample.segment_map, window))


def drop_hidden(sample: Sample) -> Sample:
    """The sample without the segments that have no pixel."""
    visible = set(present(sample.segment_map))
    return replace(sample, segments=tuple(segment for segment in sample.segments if segment.id in visible))


def jitter_color(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Color jitter of SSD (arXiv 1512.02325): brightness ±32, contrast and saturation 0.5–1.5, hue ±18 of 180, each
    with probability ½, contrast first or last; (H, W, 3) uint8 → uint8."""
    contrast_first = rng.random() < 0.5
    brightness = rng.uniform(-32, 32) if rng.random() < 0.5 else 0.0
    contrast = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    hue = rng.uniform(-18, 18) if rng.random() < 0.5 else 0.0
    gain, bias = (contrast, contrast * brightness) if contrast_first else (1.0, brightness)
    image = _affine(image, gain, bias)
    if saturation != 1.0 or hue:
        image = _hue_saturation(image, hue, saturation)
    return image if contrast_first else _affine(image, contrast, 0.0)


def _affine(image: np.ndarray, gain: float, bias: float) -> np.ndarray:
    """gain · image + bias, rounded and clipped to 0 … 255."""
    return image if gain == 1.0 and bias == 0.0 else cv2.addWeighted(image, gain, image, 0.0, bias)


def _hue_saturation(image: np.ndarray, shift: float, saturation: float) -> np.ndarray:
    """Shift the hue by `shift` of 180 steps, |shift| < 76, and scale the saturation, in HSV."""
    # A byte holds 180 + shift, and the conversion back takes it modulo 180. A negative shift is a positive one on the
    # mirrored hue circle, which results from exchanging red and blue.
    there, back = (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB) if shift >= 0 else (cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR)
    change = np.array([[1, 0, 0, abs(shift)], [0, saturation, 0, 0], [0, 0, 1, 0]], np.float32)
    return cv2.cvtColor(cv2.transform(cv2.cvtColor(image, there), change), back)

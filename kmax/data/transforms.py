"""Augmentation of one sample: large-scale jitter, colour jitter, crop and flip; resizing for evaluation.

Decided first, computed afterwards: `draw_window` draws the numbers, and only the part of the image that survives the
crop is resized. Letters: H×W size of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from kmax.structures import Sample


@dataclass(frozen=True)
class Window:
    """A resized size (height, width), and the crop (top, left, height, width) of it that is kept."""

    resized: tuple[int, int]
    crop: tuple[int, int, int, int]
    flip: bool


def fit(image_size: tuple[int, int], box: tuple[float, float]) -> tuple[int, int]:
    """Size of an image resized so that it just fits inside `box` (height, width); at least one pixel."""
    scale = min(box[0] / image_size[0], box[1] / image_size[1])
    return max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale))


def draw_window(
    image_size: tuple[int, int],
    size: tuple[int, int],
    scale: tuple[float, float],
    flip: bool,
    rng: np.random.Generator,
) -> Window:
    """Scale, place of the crop, and flip of an image, all uniform."""
    s = rng.uniform(*scale)
    height, width = fit(image_size, (s * size[0], s * size[1]))
    top = int(rng.integers(max(height - size[0], 0) + 1))
    left = int(rng.integers(max(width - size[1], 0) + 1))
    crop = (top, left, min(height, size[0]), min(width, size[1]))
    return Window((height, width), crop, bool(flip and rng.random() < 0.5))


def resize_crop(array: np.ndarray, window: Window, resample: Image.Resampling) -> np.ndarray:
    """The window of an array (h, w) or (h, w, 3), resized once.

    Equals resizing the whole and cropping, up to the rounding of the filter.
    """
    height, width = array.shape[:2]
    top, left, crop_height, crop_width = window.crop
    y, x = height / window.resized[0], width / window.resized[1]
    box = (left * x, top * y, min((left + crop_width) * x, width), min((top + crop_height) * y, height))
    resized = np.asarray(Image.fromarray(array).resize((crop_width, crop_height), resample, box=box))
    return np.ascontiguousarray(resized[:, ::-1]) if window.flip else resized


def transform_sample(sample: Sample, window: Window) -> Sample:
    """Image (bilinear) and segment map (nearest) of a sample through a window; segments that vanish are dropped."""
    image = resize_crop(sample.image, window, Image.Resampling.BILINEAR)
    segment_map = resize_crop(sample.segment_map, window, Image.Resampling.NEAREST)
    return drop_hidden(replace(sample, image=image, segment_map=segment_map))


def drop_hidden(sample: Sample) -> Sample:
    """The sample without the segments that have no pixel."""
    present = set(np.unique(sample.segment_map).tolist())
    return replace(sample, segments=tuple(segment for segment in sample.segments if segment.id in present))


def jitter_color(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour jitter of SSD (arXiv 1512.02325): brightness ±32, contrast and saturation 0.5–1.5, hue ±18 of 180, each
    with probability ½, contrast first or last; (H, W, 3) uint8 → uint8."""
    contrast_first = rng.random() < 0.5
    brightness = rng.uniform(-32, 32) if rng.random() < 0.5 else 0.0
    contrast = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    hue = rng.uniform(-18, 18) if rng.random() < 0.5 else 0.0
    gain, bias = (contrast, contrast * brightness) if contrast_first else (1.0, brightness)
    image = _affine(image, gain, bias)
    if saturation != 1.0 or hue:
        image = _hue_saturation(image, hue / 180, saturation)
    return image if contrast_first else _affine(image, contrast, 0.0)


def _affine(image: np.ndarray, gain: float, bias: float) -> np.ndarray:
    """gain · image + bias through a table of 256 values."""
    if gain == 1.0 and bias == 0.0:
        return image
    table = np.clip(np.rint(np.arange(256) * gain + bias), 0, 255).astype(np.uint8)
    return table[image]


def _hue_saturation(image: np.ndarray, turn: float, saturation: float) -> np.ndarray:
    """Hue turned by a part of the circle and saturation scaled, in HSV."""
    steps = np.arange(256)
    tables = [
        (steps + round(turn * 256)) % 256,
        np.clip(np.rint(steps * saturation), 0, 255),
        steps,
    ]
    hsv = Image.fromarray(image).convert("HSV").point([int(v) for table in tables for v in table])
    return np.asarray(hsv.convert("RGB"))


def pad(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image (h, w, 3) at the top left of (H, W, 3), and the mask (H, W) of its pixels."""
    height, width = image.shape[:2]
    padded, valid = np.zeros((*size, 3), np.uint8), np.zeros(size, bool)
    padded[:height, :width], valid[:height, :width] = image, True
    return padded, valid


def resize_and_pad(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image as it is evaluated: fitted into `size` (bilinear) and padded; with the mask of its pixels."""
    height, width = fit((image.shape[0], image.shape[1]), size)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return pad(np.asarray(resized), size)

"""Pictures of images, panoptic maps and cluster maps, with NumPy and Pillow alone.

All pictures are (H, W, 3) uint8 RGB arrays.
"""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kmax.categories import Categories
from kmax.structures import PanopticMap, Sample, Segment

Color = tuple[int, int, int]
_GOLDEN = 0.618033988749895  # multiples of the golden ratio, modulo 1, keep away from each other
_OPACITY = 0.65


def segment_colors(segments: Sequence[Segment], categories: Categories) -> dict[int, Color]:
    """A colour for every segment id: its class's colour, varied from one thing to the next."""
    seen: Counter[int] = Counter()
    colors = {}
    for segment in segments:
        category = categories.classes[segment.label]
        colors[segment.id] = _vary(category.color, seen[segment.label]) if category.is_thing else category.color
        seen[segment.label] += 1
    return colors


def _vary(color: Color, number: int) -> Color:
    """The colour itself for number 0, then its neighbours in hue, darker and lighter; after 28 they repeat."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in color))
    hue += (0, 0.05, -0.05, 0.025, -0.025, 0.075, -0.075)[number % 7]
    value = min(1.0, max(0.3, value)) * (1, 0.7, 0.85, 0.55)[number % 4]
    return color if number == 0 else _rgb(hue, saturation, value)


def _rgb(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_panoptic(
    image: np.ndarray, segmentation: PanopticMap | Sample, categories: Categories, labels: bool = True
) -> np.ndarray:
    """The image (H, W, 3) in grey under its coloured segments, with contours, and class names where they fit.

    Args:
        image: uint8 RGB; a segmentation of another size is drawn in the image's size.
        segmentation: a prediction, or a sample with its ground truth. Void stays darkened, crowd is striped.
    """
    height, width = image.shape[:2]
    segment_map = _fit_map(_segment_map(segmentation), (height, width))
    ids, index = np.unique(segment_map, return_inverse=True)
    index = index.reshape(segment_map.shape)
    colors = segment_colors(segmentation.segments, categories)
    table = np.array([colors.get(int(i), (0, 0, 0)) for i in ids], dtype=np.float32)
    opacity = np.full(index.shape, _OPACITY, dtype=np.float32)
    crowd = np.isin(ids, [s.id for s in segmentation.segments if s.crowd])[index]
    rows, columns = np.ogrid[:height, :width]
    opacity[crowd & ((rows + columns) // max(3, width // 100) % 2 == 0)] /= 4
    grey = image.mean(2, keepdims=True, dtype=np.float32)  # a coloured image would shift the colours of classes
    picture = grey + opacity[..., None] * (table[index] - grey)
    picture[_contours(index)] = 255
    result = Image.fromarray(picture.round().astype(np.uint8))
    if labels:
        _write_names(result, segment_map, segmentation.segments, categories)
    return np.asarray(result)


def draw_clusters(clusters: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """A cluster map (h, w), the query with the highest mask logit at each pixel, one fixed colour per query.

    Args:
        clusters: integers ≥ 0.
        size: (H, W) of the picture, if not h×w.
    """
    numbers = range(int(clusters.max()) + 1)
    palette = [_rgb(n * _GOLDEN, (0.85, 0.5, 0.65)[n % 3], (0.95, 0.8, 0.6)[n // 3 % 3]) for n in numbers]
    picture = np.array(palette, dtype=np.uint8)[clusters]
    return picture if size is None else _fit_map(picture, size)


def panel(
    image: np.ndarray,
    ground_truth: PanopticMap | Sample,
    prediction: PanopticMap | Sample,
    clusters: np.ndarray,
    categories: Categories,
    long_side: int = 384,
) -> np.ndarray:
    """Image · ground truth · prediction · cluster map, side by side under captions.

    Args:
        image: (H, W, 3) uint8 RGB.
        clusters: (h, w), what `draw_clusters` takes, without padding.
        long_side: pixels that each of the four pictures has on its longer side.
    """
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    pictures = {
        "image": small,
        "ground truth": draw_panoptic(small, ground_truth, categories),
        "prediction": draw_panoptic(small, prediction, categories),
        "cluster map": draw_clusters(clusters, size),
    }
    gap, bar = max(2, long_side // 96), max(16, long_side // 16)
    column = max(size[1], 6 * bar)  # wide enough for the captions
    canvas = Image.new("RGB", (4 * column + 5 * gap, size[0] + bar + gap), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for number, (caption, picture) in enumerate(pictures.items()):
        left = gap + number * (column + gap)
        canvas.paste(Image.fromarray(picture), (left + (column - size[1]) // 2, bar))
        draw.text((left + column / 2, bar / 2), caption, (40, 40, 40), _font(0.62 * bar), "mm")
    return np.asarray(canvas)


def _segment_map(segmentation: PanopticMap | Sample) -> np.ndarray:
    if isinstance(segmentation, PanopticMap):
        return segmentation.segment_map.cpu().numpy()
    return segmentation.segment_map


def _fit_map(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour resampling of (h, w, …) to (H, W, …)."""
    rows, columns = ((np.arange(n) + 0.5) * have / n for n, have in zip(size, values.shape[:2], strict=True))
    return values[rows.astype(int)[:, None], columns.astype(int)]


def _contours(index: np.ndarray) -> np.ndarray:
    """Pixels (H, W) whose right or lower neighbour belongs to another segment."""
    edge = np.zeros(index.shape, dtype=bool)
    edge[:, :-1] = index[:, :-1] != index[:, 1:]
    edge[:-1] |= index[:-1] != index[1:]
    return edge


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8, round(size)))


def _write_names(
    picture: Image.Image, segment_map: np.ndarray, segments: Sequence[Segment], categories: Categories
) -> None:
    """Write each segment's class name into it, smaller if need be, or not at all."""
    draw = ImageDraw.Draw(picture)
    large = max(picture.size) / 26
    for segment in segments:
        mask = segment_map == segment.id
        for size in (large, 0.75 * large):
            name, font = categories.names[segment.label], _font(size)
            left, top, right, bottom = draw.textbbox((0, 0), name, font)
            place = _place(mask, int(bottom - top) + 4, int(right - left) + 4)
            if place is not None:
                corner = (place[1] + 2 - left, place[0] + 2 - top)
                draw.text(corner, name, (255, 255, 255), font, stroke_width=1, stroke_fill=(30, 30, 30))
                break


def _place(mask: np.ndarray, height: int, width: int) -> tuple[int, int] | None:
    """The upper left corner (row, column) of a height×width box inside the mask, as central as can be; or None."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) < height or len(columns) < width:
        return None
    top, left = rows[0], columns[0]
    inside = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    sums = np.zeros((inside.shape[0] + 1, inside.shape[1] + 1), dtype=np.int64)
    sums[1:, 1:] = inside.cumsum(0).cumsum(1)
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    free = np.argwhere(boxes == height * width)
    if not len(free):
        return None
    centre = np.argwhere(inside).mean(0) - (height / 2, width / 2)
    row, column = free[((free - centre) ** 2).sum(1).argmin()]
    return int(top + row), int(left + column)

"""A panoptic map over its image: colors, contours, class names, legend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from kmax.categories import Categories
from kmax.structures import PanopticMap, Sample, Segment
from kmax.visualization.fonts import font, legible_names
from kmax.visualization.layout import fit_map, text_width
from kmax.visualization.palette import INK, MUTED, PAPER, VOID_COLOR, Color, segment_colors

OPACITY = 0.65
"""Of segments over their image, where nothing else is asked for."""
_PIECE = 2**21  # pixels that are drawn at a time


def draw_panoptic(
    image: np.ndarray,
    segmentation: PanopticMap | Sample,
    categories: Categories,
    labels: bool = True,
    opacity: float = OPACITY,
) -> np.ndarray:
    """The image (H, W, 3) in gray under its colored segments, with contours, and class names where they fit.

    Args:
        image: uint8 RGB; a segmentation of another size is drawn in the image's size.
        segmentation: a prediction, or a sample with its ground truth. Void is dark gray, crowd is striped.
        opacity: of the segments, from 0, the image as it is, to 1, flat colors.
    """
    if opacity <= 0:
        untouched: np.ndarray = image.copy()
        return untouched
    height, width = image.shape[:2]
    segment_map = fit_map(segment_map_of(segmentation), (height, width))
    colors = segment_colors(segmentation.segments, categories)
    crowd = [s.id for s in segmentation.segments if s.crowd]
    picture = np.empty_like(image)
    step = max(1, _PIECE // width)
    for top in range(0, height, step):
        part = slice(top, top + step)
        picture[part] = _blend(image[part], segment_map[top : top + step + 1], colors, crowd, top, opacity)
    result = Image.fromarray(picture)
    if labels:
        _write_names(result, segment_map, segmentation.segments, categories)
    return np.asarray(result)


def _blend(
    image: np.ndarray,
    segment_map: np.ndarray,
    colors: Mapping[int, Color],
    crowd: Sequence[int],
    top: int,
    whole: float,
) -> np.ndarray:
    """Rows (h, W, 3) of a picture from row `top` on; `segment_map` has a row more, where there is one."""
    height, width = image.shape[:2]
    ids, index = np.unique(segment_map, return_inverse=True)
    index = index.reshape(segment_map.shape)
    edges, index = contours(index)[:height], index[:height]
    table = np.array([colors.get(int(i), VOID_COLOR) for i in ids], dtype=np.float32)
    opacity = np.full(index.shape, whole, dtype=np.float32)
    rows, columns = np.ogrid[top : top + height, :width]
    opacity[np.isin(ids, crowd)[index] & ((rows + columns) // max(3, width // 100) % 2 == 0)] /= 4
    gray = image.mean(2, keepdims=True, dtype=np.float32)  # a colored image would shift the colors of classes
    below = gray if whole >= OPACITY else image + whole / OPACITY * (gray - image)
    picture: np.ndarray = below + opacity[..., None] * (table[index] - below)
    picture[edges] += min(1.0, whole / OPACITY) * (255 - picture[edges])
    rounded: np.ndarray = picture.round().astype(np.uint8)
    return rounded


def with_legend(picture: np.ndarray, segments: Sequence[Segment], categories: Categories) -> np.ndarray:
    """The picture with a column at its right: the colors of each class's segments, its name and their number.

    Classes stand in the order of their first segment; those that don't fit are counted in the last line.
    """
    colors = segment_colors(segments, categories)
    entries, names = [], legible_names(categories)
    for label in dict.fromkeys(segment.label for segment in segments):
        ids = [s.id for s in segments if s.label == label]
        entries.append(([colors[i] for i in ids], names[label] + (f" ({len(ids)})" if len(ids) > 1 else "")))
    return with_key(picture, entries, "classes", "no segment")


def with_key(
    picture: np.ndarray, entries: Sequence[tuple[Sequence[Color], str]], things: str = "entries", empty: str = ""
) -> np.ndarray:
    """The picture with a column at its right that tells what colors mean; `things` are what is counted in the last
    line where not all entries fit, `empty` is written where there are none."""
    height, width = picture.shape[:2]
    size = max(11.0, min(max(height, width) / 30, height / 8))
    face, line = font(size, "".join(text for _, text in entries)), max(12, round(1.6 * size))
    room = max(1, (height - line // 2) // line)
    shown = entries if len(entries) <= room else entries[: room - 1]
    note = empty if not entries else f"and {len(entries) - len(shown)} more {things}"
    side = line * 2 // 3
    column = 3 * side + max(text_width(text, face) for text in [note, *(text for _, text in shown)])
    canvas = Image.new("RGB", (width + column, height), PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    pen = ImageDraw.Draw(canvas)
    for number, (colors, text) in enumerate(shown):
        top, left = line // 4 + number * line, width + side // 2
        stripes = colors[: max(1, side // 3)]
        for index, color in enumerate(stripes):
            box = (left + index * side / len(stripes), top, left + (index + 1) * side / len(stripes) - 1, top + side)
            pen.rectangle(box, color)
        pen.text((left + 1.5 * side, top + side / 2), text, INK, face, "lm")
    if len(shown) < len(entries) or not entries:
        pen.text((width + side // 2, line // 4 + len(shown) * line + side / 2), note, MUTED, face, "lm")
    return np.asarray(canvas)


def segment_map_of(segmentation: PanopticMap | Sample) -> np.ndarray:
    """The map (H, W) of a prediction or of a sample as an array."""
    if isinstance(segmentation, PanopticMap):
        return segmentation.segment_map.cpu().numpy()
    return segmentation.segment_map


def contours(index: np.ndarray) -> np.ndarray:
    """Pixels (H, W) whose right or lower neighbor belongs to another segment."""
    edge = np.zeros(index.shape, dtype=bool)
    edge[:, :-1] = index[:, :-1] != index[:, 1:]
    edge[:-1] |= index[:-1] != index[1:]
    return edge


def _write_names(
    picture: Image.Image, segment_map: np.ndarray, segments: Sequence[Segment], categories: Categories
) -> None:
    """Write each segment's class name into it, smaller if need be, or not at all."""
    draw = ImageDraw.Draw(picture)
    large, names = max(picture.size) / 26, legible_names(categories)
    for segment in segments:
        mask = segment_map == segment.id
        for size in (large, 0.75 * large):
            name = names[segment.label]
            face = font(size, name)
            left, top, right, bottom = draw.textbbox((0, 0), name, face)
            free = _free_box(mask, int(bottom - top) + 4, int(right - left) + 4)
            if free is not None:
                corner = (free[1] + 2 - left, free[0] + 2 - top)
                draw.text(corner, name, PAPER, face, stroke_width=1, stroke_fill=(30, 30, 30))
                break


def _free_box(mask: np.ndarray, height: int, width: int) -> tuple[int, int] | None:
    """The upper left corner (row, column) of a height×width box inside the mask, as central as possible; or None. In a
    large mask only every n-th row and column is examined."""
    coarse = math.isqrt(mask.size // _PIECE) + 1
    if coarse > 1:
        corner = _free_box(mask[::coarse, ::coarse], -(-height // coarse) + 1, -(-width // coarse) + 1)
        return corner and (corner[0] * coarse, corner[1] * coarse)
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
    center = np.argwhere(inside).mean(0) - (height / 2, width / 2)
    row, column = free[((free - center) ** 2).sum(1).argmin()]
    return int(top + row), int(left + column)

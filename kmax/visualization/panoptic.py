"""A panoptic map over its image: colors, contours, class names, legend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from kmax.categories import Categories
from kmax.structures import PanopticMap, Sample, Segment
from kmax.visualization.fonts import SMALLEST, font, legible_names
from kmax.visualization.layout import fit_map, text_width
from kmax.visualization.palette import INK, MUTED, PAPER, VOID_COLOR, Color, segment_colors

OPACITY = 0.65
"""Of segments over their image, where nothing else is asked for."""
_PIECE = 2**21  # pixels that are drawn at a time
_Box = tuple[int, int, int, int]  # left, top, right, bottom


def draw_panoptic(
    image: np.ndarray,
    segmentation: PanopticMap | Sample,
    categories: Categories,
    labels: bool = True,
    scores: bool = False,
    identities: bool = False,
    opacity: float = OPACITY,
) -> np.ndarray:
    """The image (H, W, 3) in gray under its colored segments, with contours, and class names where they fit.

    Args:
        image: uint8 RGB; a segmentation of another size is drawn in the image's size.
        segmentation: a prediction, or a sample with its ground truth. Void is dark gray, crowd is striped.
        labels: write class names.
        scores: write scores after them.
        identities: ids stay from frame to frame: write those of things, and choose shades by them.
        opacity: of the segments, from 0, the image as it is, to 1, flat colors.
    """
    if opacity <= 0:
        untouched: np.ndarray = image.copy()
        return untouched
    height, width = image.shape[:2]
    segment_map = fit_map(segment_map_of(segmentation), (height, width))
    colors = segment_colors(segmentation.segments, categories, identities)
    crowd = [s.id for s in segmentation.segments if s.crowd]
    picture = np.empty_like(image)
    step = max(1, _PIECE // width)
    for top in range(0, height, step):
        part = slice(top, top + step)
        picture[part] = _blend(image[part], segment_map[top : top + step + 1], colors, crowd, top, opacity)
    result = Image.fromarray(picture)
    if labels:
        _write_names(result, segment_map, _texts(segmentation.segments, categories, scores, identities))
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


def _texts(segments: Sequence[Segment], categories: Categories, scores: bool, identities: bool) -> dict[int, str]:
    """What is written into each segment, by id: `star`, `star #3`, `star #3 0.98`."""
    names, texts = legible_names(categories), {}
    for segment in segments:
        identity = f" #{segment.id}" if identities and categories.is_thing[segment.label] else ""
        texts[segment.id] = names[segment.label] + identity + (f" {segment.score:.2f}" if scores else "")
    return texts


def _write_names(picture: Image.Image, segment_map: np.ndarray, texts: Mapping[int, str]) -> None:
    """Write each segment's text into it, smaller if need be, or not at all.

    On an image so small that letters cannot shrink with it, a text that does not fit is written across its segment's
    center, unless another text is there.
    """
    pen, large = ImageDraw.Draw(picture), max(picture.size) / 26
    taken, left_out = list[_Box](), list[tuple[str, np.ndarray]]()
    for segment_id, text in texts.items():
        mask = segment_map == segment_id
        for size in (large, 0.75 * large):
            width, height = _room(pen, text, size)
            free = _free_box(mask, height, width)
            if free is not None:
                taken.append(_write(pen, text, size, (free[1], free[0])))
                break
        else:
            left_out.append((text, mask))
    if 0.75 * large > SMALLEST:
        return
    for text, mask in left_out:
        width, height = _room(pen, text, SMALLEST)
        if not mask.any() or width > picture.width or height > picture.height:
            continue
        y, x = np.argwhere(mask).mean(0) - (height / 2, width / 2)
        left, top = int(np.clip(x, 0, picture.width - width)), int(np.clip(y, 0, picture.height - height))
        box = (left, top, left + width, top + height)
        if not any(_overlap(box, other) for other in taken):
            taken.append(_write(pen, text, SMALLEST, (left, top)))


def _room(pen: ImageDraw.ImageDraw, text: str, size: float) -> tuple[int, int]:
    """The width and height that a text takes with its outline."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font(size, text))
    return int(right - left) + 4, int(bottom - top) + 4


def _write(pen: ImageDraw.ImageDraw, text: str, size: float, corner: tuple[int, int]) -> _Box:
    """Write a text with its upper left corner there; the box that it takes."""
    face = font(size, text)
    left, top, _, _ = pen.textbbox((0, 0), text, face)
    place = (corner[0] + 2 - left, corner[1] + 2 - top)
    pen.text(place, text, PAPER, face, stroke_width=1, stroke_fill=(30, 30, 30))
    width, height = _room(pen, text, size)
    return corner[0], corner[1], corner[0] + width, corner[1] + height


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


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

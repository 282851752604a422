"""Charts of metrics: a bar per class, a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from kmax.visualization.fonts import font
from kmax.visualization.layout import shorten, text_width
from kmax.visualization.palette import INK, MUTED, PAPER, Color

_SIZE = 13
_LINE = 20
_GRID = (225, 225, 225)
_BLUE = np.array((36, 84, 160))


def draw_bars(
    values: Mapping[str, float],
    title: str,
    colors: Mapping[str, Color] | None = None,
    top: float = 100.0,
    width: int = 760,
) -> np.ndarray:
    """A horizontal bar for each name in the given order, from 0 to `top`, with its value at the end.

    Args:
        values: what each bar shows, e.g. the PQ of a class in percent.
        colors: of bars, default one blue.
    """
    face, head = font(_SIZE), font(1.25 * _SIZE, title)
    faces = {name: font(_SIZE, name) for name in values}
    names = {name: shorten(name, 0.35 * width, faces[name]) for name in values}
    left = 16 + max((text_width(text, faces[name]) for name, text in names.items()), default=0)
    right = width - 60
    above = 56
    canvas = Image.new("RGB", (width, above + _LINE * len(values) + 16), PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text((width / 2, 18), shorten(title, width - 16, head), INK, head, "mm")
    for mark in np.linspace(0, top, 6):
        x = left + (right - left) * mark / top
        pen.line((x, above - 6, x, canvas.height - 12), _GRID)
        pen.text((x, above - 14), f"{mark:g}", MUTED, face, "mm")
    for number, (name, value) in enumerate(values.items()):
        y = above + number * _LINE + _LINE // 2
        end = left + (right - left) * min(max(value, 0), top) / top
        pen.text((left - 8, y), names[name], INK, faces[name], "rm")
        pen.rectangle((left, y - 7, max(end, left + 1), y + 6), tuple((colors or {}).get(name, tuple(_BLUE.tolist()))))
        pen.text((max(end, left + 1) + 6, y), f"{value:.1f}", INK, face, "lm")
    return np.asarray(canvas)


def draw_confusion(
    counts: np.ndarray,
    names: Sequence[str],
    title: str,
    numbers: bool | None = None,
    column_names: Sequence[str] | None = None,
) -> np.ndarray:
    """A confusion matrix: a row per true class, a column per predicted class, each row in percent of its sum.

    Args:
        counts: (R, C) ≥ 0; rows without any count stay white.
        names: of rows and columns; (R, C) may be square or lack the last name's row or column.
        numbers: write the percentages into the cells; default where there are at most 24 classes.
        column_names: of the columns, where they are others than those of the rows.
    """
    across = names if column_names is None else column_names
    counts = np.asarray(counts, dtype=np.float64)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    numbers = max(len(names), len(across)) <= 24 if numbers is None else numbers
    cell = 40 if numbers else _LINE - 4
    size = _SIZE if cell >= _SIZE + 4 else cell - 4
    face, head = font(size), font(1.25 * _SIZE, title)
    margin = 16 + max(text_width(name, font(size, name)) for name in (*names, *across))
    rows, columns = counts.shape
    left, top = margin + _LINE, margin + 3 * _LINE
    width = max(left + columns * cell + 16, text_width(title, head) + 32)
    canvas = Image.new("RGB", (width, top + rows * cell + 16), PAPER)
    pixels = PAPER + np.sqrt(share)[..., None] * (_BLUE - PAPER)  # the root shows small confusions
    squares = pixels.round().astype(np.uint8).repeat(cell, 0).repeat(cell, 1)
    canvas.paste(Image.fromarray(squares), (left, top))
    pen = ImageDraw.Draw(canvas)
    pen.text((width / 2, 18), title, INK, head, "mm")
    pen.text((left + columns * cell / 2, 2 * _LINE), "predicted", MUTED, face, "mm")
    for number in range(max(rows, columns) + 1):
        x, y = left + number * cell, top + number * cell
        if number <= columns:
            pen.line((x, top, x, top + rows * cell), _GRID)
        if number <= rows:
            pen.line((left, y, left + columns * cell, y), _GRID)
    for number, name in enumerate(names[:rows]):
        pen.text((left - 8, top + (number + 0.5) * cell), name, INK, font(size, name), "rm")
    _write_upward(canvas, across[:columns], (left, top - margin), (columns * cell, margin), INK, size)
    _write_upward(canvas, ["true"], (0, top), (_LINE, rows * cell), MUTED, size)
    if numbers:
        for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
            center = (left + (column + 0.5) * cell, top + (row + 0.5) * cell)
            ink = PAPER if share[row, column] > 0.4 else INK
            pen.text(center, f"{100 * share[row, column]:.0f}", ink, face, "mm")
    return np.asarray(canvas)


def _write_upward(
    canvas: Image.Image, texts: Sequence[str], corner: tuple[int, int], size: tuple[int, int], ink: Color, pixels: float
) -> None:
    """Texts turned by 90°, side by side in a box (width, height); several start at its bottom, one is centered."""
    turned = Image.new("RGB", size[::-1], PAPER)
    pen, step = ImageDraw.Draw(turned), size[0] / len(texts)
    x, anchor = (8, "lm") if len(texts) > 1 else (size[1] / 2, "mm")
    for number, text in enumerate(texts):
        pen.text((x, (number + 0.5) * step), text, ink, font(pixels, text), anchor)
    canvas.paste(turned.transpose(Image.Transpose.ROTATE_90), corner)

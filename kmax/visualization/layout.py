"""Text, resampling and sheets of pictures, with NumPy and Pillow alone. All pictures are (H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from kmax.visualization.fonts import Font, font
from kmax.visualization.palette import INK, MUTED, PAPER, Color

Cell = tuple[str, np.ndarray | None]  # caption and picture
Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a picture in a sheet, in pixels."""


def text_width(text: str, face: Font) -> int:
    """Pixels that a line of text is wide."""
    return round(face.getlength(text))


def shorten(text: str, width: float, face: Font) -> str:
    """The text, or its beginning and three dots, not wider than `width`."""
    if text_width(text, face) <= width:
        return text
    while text and text_width(text + "...", face) > width:
        text = text[:-1]
    return text + "..."


def fit_map(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbor resampling of (h, w, …) to (H, W, …)."""
    if values.shape[:2] == size:
        return values
    rows, columns = ((np.arange(n) + 0.5) * have / n for n, have in zip(size, values.shape[:2], strict=True))
    resampled: np.ndarray = values[rows.astype(int)[:, None], columns.astype(int)]
    return resampled


def fit_image(image: np.ndarray, long_side: int) -> np.ndarray:
    """An image resized so that its longer side has `long_side` pixels."""
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def sheet(rows: Sequence[Sequence[Cell]], long_side: int, titles: Sequence[str] = ()) -> np.ndarray:
    """Pictures under captions in rows and columns.

    Args:
        rows: (caption, picture) of each cell; None leaves it empty. The pictures of a sheet have the same size.
        long_side: of a picture; decides how large the text is.
        titles: a line above each row.
    """
    height, width = next(picture for row in rows for _, picture in row if picture is not None).shape[:2]
    gap, bar = _gap_and_bar(long_side)
    column = _column(width, long_side)
    columns, head = max(map(len, rows)), bar + gap if titles else 0
    step = head + bar + height + gap
    canvas = Image.new("RGB", (columns * (column + gap) + gap, len(rows) * step + gap), PAPER)
    pen, texts = ImageDraw.Draw(canvas), [*titles, *(caption for row in rows for caption, _ in row)]
    face = font(0.62 * bar, "".join(texts))
    for number, row in enumerate(rows):
        top = number * step + head
        if titles:
            pen.text((gap, top - bar / 2), shorten(titles[number], canvas.width - 2 * gap, face), INK, face, "lm")
        for (caption, picture), box in zip(row, boxes(len(row), (height, width), long_side, top), strict=True):
            text = shorten(caption, column, face)
            pen.text(((box[0] + box[2]) / 2, top + bar / 2), text, MUTED if titles else INK, face, "mm")
            if picture is not None:
                canvas.paste(Image.fromarray(picture), box[:2])
    return np.asarray(canvas)


def boxes(count: int, size: tuple[int, int], long_side: int, top: int = 0) -> list[Box]:
    """Where `sheet` draws the `count` pictures, each (H, W) = `size`, of a row that begins at `top`."""
    gap, bar = _gap_and_bar(long_side)
    column = _column(size[1], long_side)
    lefts = [gap + index * (column + gap) + (column - size[1]) // 2 for index in range(count)]
    return [(left, top + bar, left + size[1], top + bar + size[0]) for left in lefts]


def _gap_and_bar(long_side: int) -> tuple[int, int]:
    """Pixels between pictures, and the height of a line of text."""
    return max(2, long_side // 96), max(20, long_side // 15)


def _column(width: int, long_side: int) -> int:
    """The width of a column, enough for captions above narrow pictures."""
    return max(width, 6 * _gap_and_bar(long_side)[1])


def key_line(entries: Sequence[tuple[Sequence[Color], str]], width: int, long_side: int) -> np.ndarray:
    """What colors mean, side by side in as many lines as `width` needs; the text is that of a sheet of `long_side`."""
    gap, bar = _gap_and_bar(long_side)
    face, side = font(0.62 * bar, "".join(text for _, text in entries)), bar // 2
    places, left, line = [], gap, 0
    for colors, text in entries:
        needed = side + gap + text_width(text, face) + bar
        if left + needed - bar > width and left > gap:
            left, line = gap, line + 1
        places.append((left, line, colors, text))
        left += needed
    canvas = Image.new("RGB", (width, (line + 1) * bar + gap), PAPER)
    pen = ImageDraw.Draw(canvas)
    for left, line, colors, text in places:
        middle = line * bar + bar // 2
        for index, color in enumerate(colors):
            start, end = (left + side * edge // len(colors) for edge in (index, index + 1))
            pen.rectangle((start, middle - side // 2, end, middle + side // 2), color)
        pen.text((left + side + gap, middle), text, INK, face, "lm")
    return np.asarray(canvas)

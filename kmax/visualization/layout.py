"""Text, resampling and sheets of pictures, with NumPy and Pillow alone. All pictures are (H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from kmax.visualization.fonts import Font, font
from kmax.visualization.palette import INK, MUTED, PAPER

Cell = tuple[str, np.ndarray | None]  # caption and picture


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
    gap, bar = max(2, long_side // 96), max(20, long_side // 15)
    column = max(width, 6 * bar)  # wide enough for the captions
    columns, head = max(map(len, rows)), bar + gap if titles else 0
    step = head + bar + height + gap
    canvas = Image.new("RGB", (columns * (column + gap) + gap, len(rows) * step + gap), PAPER)
    pen, texts = ImageDraw.Draw(canvas), [*titles, *(caption for row in rows for caption, _ in row)]
    face = font(0.62 * bar, "".join(texts))
    for number, row in enumerate(rows):
        top = number * step + head
        if titles:
            pen.text((gap, top - bar / 2), shorten(titles[number], canvas.width - 2 * gap, face), INK, face, "lm")
        for index, (caption, picture) in enumerate(row):
            left = gap + index * (column + gap)
            text = shorten(caption, column, face)
            pen.text((left + column / 2, top + bar / 2), text, MUTED if titles else INK, face, "mm")
            if picture is not None:
                canvas.paste(Image.fromarray(picture), (left + (column - width) // 2, top + bar))
    return np.asarray(canvas)

"""The worst images of an evaluation as one HTML page, which opens from disk: its pictures are inside."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from kmax.categories import Categories
from kmax.console import plain
from kmax.metrics import Quality
from kmax.metrics.panoptic_quality import match_segments
from kmax.structures import PanopticMap, Sample
from kmax.visualization.errors import ERROR_KEY, draw_errors
from kmax.visualization.layout import fit_image
from kmax.visualization.palette import Color
from kmax.visualization.panoptic import draw_panoptic

PICTURES = ("image", "ground truth", "prediction", "errors")
_NUMBERS = (("pq", "PQ"), ("sq", "SQ"), ("rq", "RQ"), ("tp", "found"), ("fp", "false"), ("fn", "missed"))
_PAGE = Path(__file__).with_name("gallery.html")
_QUALITY = 88  # of JPEG


@dataclass(frozen=True)
class GalleryImage:
    """One image of the gallery: its `name`, its `quality`, a `note` of what is false and missed, and the four
    `PICTURES` as base64 of JPEG."""

    name: str
    quality: Quality
    note: str
    pictures: tuple[str, ...]


def gallery_image(
    truth: Sample, prediction: PanopticMap, quality: Quality, categories: Categories, long_side: int = 560
) -> GalleryImage:
    """Draw an image for the gallery.

    Args:
        quality: of this image, from `kmax.metrics.image_quality`.
        long_side: pixels of each picture's longer side.
    """
    small = fit_image(truth.image, long_side)
    pictures = (
        small,
        draw_panoptic(small, truth, categories),
        draw_panoptic(small, prediction, categories),
        draw_errors(small, truth, prediction, categories, key=False),
    )
    name = plain(truth.file_name or truth.image_id)
    return GalleryImage(name, quality, _mistakes(truth, prediction, categories), tuple(map(_encoded, pictures)))


def gallery_page(images: Sequence[GalleryImage], title: str, summary: str) -> str:
    """The page as HTML, the images in the given order. Names are text, whatever they contain.

    Args:
        title: what was evaluated.
        summary: a sentence under the title.
    """
    chips = (f'<li><i style="background:{_stripes(colors)}"></i>{text}</li>' for colors, text in ERROR_KEY)
    heads = (f'<th aria-sort="none"><button>{text}</button></th>' for _, text in _NUMBERS)
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=html.escape(plain(title)),
        summary=html.escape(summary),
        key="".join(chips),
        heads="".join(heads).replace('"none"', '"ascending"', 1),
        pictures="".join(f"<th>{name}</th>" for name in PICTURES),
        rows="\n".join(_row(image) for image in images),
        empty="" if images else "<p>No image has a segment to find.</p>",
    )


def _row(image: GalleryImage) -> str:
    name = html.escape(image.name)
    values = ((text, getattr(image.quality, key)) for key, text in _NUMBERS)
    numbers = (
        f'<td class="number" data-label="{text}" data-value="{value!r}">'
        f"{f'{value:.1f}' if isinstance(value, float) else value}</td>"
        for text, value in values
    )
    pictures = (
        f'<td class="picture" data-label="{kind}"><button aria-label="enlarge: {kind} of {name}">'
        f'<img alt="{kind} of {name}" src="data:image/jpeg;base64,{data}"></button></td>'
        for kind, data in zip(PICTURES, image.pictures, strict=True)
    )
    note = f"<small>{html.escape(image.note)}</small>"
    return f'<tr><th scope="row" data-value="{name}">{name}{note}</th>{"".join(numbers)}{"".join(pictures)}</tr>'


def _stripes(colors: Sequence[Color]) -> str:
    """A background of one color or of stripes, in CSS."""
    width = 3  # pixels
    bands = [f"rgb{color} {width * n}px {width * (n + 1)}px" for n, color in enumerate(colors)]
    return f"repeating-linear-gradient(135deg, {', '.join(bands)})"


def _mistakes(truth: Sample, prediction: PanopticMap, categories: Categories) -> str:
    """The classes of missed and of false segments, with their number."""
    matches = match_segments(prediction, truth, categories.num_classes)
    parts = {
        "missed": matches.true.label[matches.missed],
        "false": matches.predicted.label[matches.false],
    }
    texts = [f"{kind}: {_counted(labels, categories)}" for kind, labels in parts.items() if len(labels)]
    return " · ".join(texts)


def _counted(labels: Iterable[int], categories: Categories) -> str:
    """Names of classes, the most frequent first: "3 person, dog"."""
    counts = Counter(map(int, labels)).most_common()
    return ", ".join(f"{n} {plain(categories.names[x])}" if n > 1 else plain(categories.names[x]) for x, n in counts)


def _encoded(picture: np.ndarray) -> str:
    with io.BytesIO() as file:
        Image.fromarray(picture).save(file, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
        return base64.b64encode(file.getvalue()).decode()

"""Semantic maps as pictures: the dataset's ids, in the colors of the classes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from kmax.categories import Categories
from kmax.files import Json


def label_image(labels: np.ndarray, categories: Categories) -> Image.Image:
    """Labels (H, W) as dataset ids by pixel in an indexed PNG that wears the classes' colors; 16 bits of gray for ids
    over 255; positions in the table `semantic.json` if ids need more."""
    values = semantic_values(categories)
    if values.max() > 255:
        return Image.fromarray(values.astype(np.uint16)[labels])
    palette = np.zeros((256, 3), np.uint8)
    palette[values] = [category.color for category in categories.classes]
    image = Image.fromarray(values.astype(np.uint8)[labels])
    image.putpalette(palette.ravel().tolist())
    return image


def semantic_values(categories: Categories) -> np.ndarray:
    """The value of each class in a semantic PNG, (K,): its id, or its position if ids do not fit 16 bits."""
    ids = np.array(categories.ids)
    return ids if ids.min() >= 0 and ids.max() < 2**16 else np.arange(len(ids))


def semantic_table(categories: Categories) -> list[Json]:
    """What each value of a semantic PNG means."""
    return [
        {"value": int(value), "id": c.id, "name": c.name, "isthing": int(c.is_thing)}
        for value, c in zip(semantic_values(categories), categories.classes, strict=True)
    ]

"""Pictures of one image side by side."""

from __future__ import annotations

import numpy as np

from kmax.categories import Categories
from kmax.structures import PanopticMap, Sample
from kmax.visualization.clusters import draw_clusters
from kmax.visualization.errors import ERROR_KEY, draw_errors
from kmax.visualization.layout import Box, boxes, fit_image, key_line, sheet
from kmax.visualization.panoptic import draw_panoptic

LONG_SIDE = 384
PANEL = ("image", "ground truth", "prediction", "errors", "cluster map")
"""The pictures of a panel, from left to right."""


def panel(
    image: np.ndarray,
    ground_truth: Sample,
    prediction: PanopticMap,
    clusters: np.ndarray,
    categories: Categories,
    long_side: int = LONG_SIDE,
) -> np.ndarray:
    """Image · ground truth · prediction · errors · cluster map, side by side under captions, and the key of the errors.

    Args:
        image: (H, W, 3) uint8 RGB.
        clusters: (h, w), what `draw_clusters` takes, without padding.
        long_side: pixels that each of the pictures has on its longer side.
    """
    small = fit_image(image, long_side)
    pictures = (
        small,
        draw_panoptic(small, ground_truth, categories),
        draw_panoptic(small, prediction, categories),
        draw_errors(small, ground_truth, prediction, categories, key=False),
        draw_clusters(clusters, (small.shape[0], small.shape[1])),
    )
    above = sheet([list(zip(PANEL, pictures, strict=True))], long_side)
    return np.concatenate([above, key_line([((), "errors:"), *ERROR_KEY], above.shape[1], long_side)])


def panel_boxes(image: np.ndarray, long_side: int = LONG_SIDE) -> dict[str, Box]:
    """Where the pictures of the panel of an image are."""
    height, width = fit_image(image, long_side).shape[:2]
    return dict(zip(PANEL, boxes(len(PANEL), (height, width), long_side), strict=True))

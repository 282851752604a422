"""Pictures of one image side by side."""

from __future__ import annotations

import numpy as np

from kmax.categories import Categories
from kmax.structures import PanopticMap, Sample
from kmax.visualization.clusters import draw_clusters
from kmax.visualization.errors import draw_errors
from kmax.visualization.layout import fit_image, sheet
from kmax.visualization.panoptic import draw_panoptic


def panel(
    image: np.ndarray,
    ground_truth: Sample,
    prediction: PanopticMap,
    clusters: np.ndarray,
    categories: Categories,
    long_side: int = 384,
) -> np.ndarray:
    """Image · ground truth · prediction · errors · cluster map, side by side under captions.

    Args:
        image: (H, W, 3) uint8 RGB.
        clusters: (h, w), what `draw_clusters` takes, without padding.
        long_side: pixels that each of the pictures has on its longer side.
    """
    small = fit_image(image, long_side)
    pictures = {
        "image": small,
        "ground truth": draw_panoptic(small, ground_truth, categories),
        "prediction": draw_panoptic(small, prediction, categories),
        "errors": draw_errors(small, ground_truth, prediction, categories, key=False),
        "cluster map": draw_clusters(clusters, (small.shape[0], small.shape[1])),
    }
    return sheet([list(pictures.items())], long_side)

"""What a prediction gets right and wrong, segment by segment as panoptic quality counts it."""

from __future__ import annotations

import numpy as np

from kmax.categories import Categories
from kmax.metrics.panoptic_quality import match_segments
from kmax.structures import PanopticMap, Sample
from kmax.visualization.layout import fit_map
from kmax.visualization.palette import PAPER, VOID_COLOR, Color
from kmax.visualization.panoptic import contours, with_key

TRUE_POSITIVE: Color = (60, 170, 80)
WRONG_PIXELS: Color = (240, 200, 60)
FALSE_POSITIVE: Color = (220, 50, 50)
MISSED: Color = (60, 110, 230)
VOID = VOID_COLOR
_OPACITY = 0.65
ERROR_KEY: tuple[tuple[tuple[Color, ...], str], ...] = (
    ((TRUE_POSITIVE,), "true positive"),
    ((WRONG_PIXELS,), "beyond its partner"),
    ((FALSE_POSITIVE,), "false positive"),
    ((MISSED,), "missed"),
    ((FALSE_POSITIVE, MISSED), "missed, under a false one"),
    ((VOID,), "void or unclaimed"),
)
"""The colors of `draw_errors` and what they mean."""


def draw_errors(
    image: np.ndarray, truth: Sample, prediction: PanopticMap, categories: Categories, key: bool = True
) -> np.ndarray:
    """The image in gray, with its segments colored as right or wrong, and the contours of the ground truth.

    Green: pixels that a matched pair of segments shares; yellow: pixels of a matched segment beyond its partner; red:
    predicted segments without a match; blue: missed segments (striped with red under a false one); dark: void, crowd,
    and pixels that nobody claims.

    Args:
        image: (H, W, 3) uint8 RGB, maybe of another size than the maps.
        key: add a column that names the colors and counts the segments.

    Raises:
        ValueError: ground truth and prediction do not belong together.
    """
    matches = match_segments(prediction, truth, categories.num_classes)
    size = (image.shape[0], image.shape[1])
    true_map = fit_map(truth.segment_map, size)
    row = matches.true.index(true_map)
    column = matches.predicted.index(fit_map(prediction.segment_map.cpu().numpy(), size))
    partner = np.full(len(matches.true.ids) + 1, -2)  # of each true segment; −2: none, also for pixels without one
    partner[matches.row] = matches.column
    matched = np.append(np.zeros(len(matches.predicted.ids), bool), False)
    matched[matches.column] = True
    missed, false = np.append(matches.missed, False)[row], np.append(matches.false, False)[column]
    found = partner[row] == column
    color = np.full((*size, 3), VOID, dtype=np.float32)
    color[((partner[row] >= 0) | matched[column]) & (row >= 0)] = WRONG_PIXELS
    color[found] = TRUE_POSITIVE
    color[missed] = MISSED
    rows, columns = np.ogrid[: size[0], : size[1]]
    stripe = (rows + columns) // max(3, size[1] // 100) % 2 == 0
    color[false & ~(missed & stripe)] = FALSE_POSITIVE
    gray = image.mean(2, keepdims=True, dtype=np.float32)
    picture: np.ndarray = (gray + _OPACITY * (color - gray)).round().astype(np.uint8)
    picture[contours(true_map)] = PAPER
    if not key:
        return picture
    counts = {
        "true positive": len(matches.row),
        "false positive": int(matches.false.sum()),
        "missed": int(matches.missed.sum()),
    }
    entries = [(colors, f"{counts[text]} {text}" if text in counts else text) for colors, text in ERROR_KEY]
    return with_key(picture, entries)

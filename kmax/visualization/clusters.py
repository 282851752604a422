"""How clusters form: assignment, confidence, one query followed through the layers, pixel features as colors.

Letters: N queries, K classes without void, h×w mask logits without padding, D depth of the pixel feature.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from kmax.categories import Categories
from kmax.structures import Prediction
from kmax.visualization.fonts import font, legible_names
from kmax.visualization.layout import Cell, fit_image, fit_map, sheet
from kmax.visualization.palette import INK, PAPER, cluster_color, heat
from kmax.visualization.panoptic import contours


def draw_clusters(clusters: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """A cluster map (h, w), the query with the highest mask logit at each pixel, one fixed color per query.

    Args:
        clusters: integers ≥ 0.
        size: (H, W) of the picture, if not h×w.
    """
    palette = [cluster_color(query) for query in range(int(clusters.max()) + 1)]
    picture = np.array(palette, dtype=np.uint8)[clusters]
    return picture if size is None else fit_map(picture, size)


_ROWS = (
    "Cluster map: the query with the highest mask logit at each pixel, a color per query",
    "Confidence: the mask probability of that query",
    "Query {query} on its way through the layers: mask probability, and the class it stands for",
    "Pixel features: three principal components as red, green and blue; like colors, like features",
)


def draw_cluster_viewer(
    image: np.ndarray,
    stages: Sequence[Prediction],
    categories: Categories,
    names: Sequence[str],
    query: int | None = None,
    long_side: int = 192,
) -> np.ndarray:
    """One column per prediction, coarse to final, and four rows: the cluster map; the confidence, i.e. the mask
    probability of the pixel's own query; the mask probability of one query, with the class it stands for in each
    layer; and the pixel features, their first three principal components as red, green and blue.

    Args:
        image: (H, W, 3) uint8 RGB.
        stages: the predictions of this image, without batch and padding, all h×w.
        names: of the stages.
        query: the query that is followed; default `main_query`.
        long_side: pixels of each picture's longer side.

    Raises:
        ValueError: there is no such query.
    """
    small = fit_image(image, long_side)
    size = (small.shape[0], small.shape[1])
    count = len(stages[-1].class_logits)
    query = main_query(stages[-1]) if query is None else query
    if not 0 <= query < count:
        raise ValueError(f"There is no query {query}: this model has 0 … {count - 1}.")
    masks = [mask_probabilities(stage.mask_logits) for stage in stages]
    winners = [mask.argmax(0) for mask in masks]
    colors = feature_colors([_array(stage.pixel_feature) for stage in stages])
    final = fit_map(winners[-1] == query, size)
    rows: list[list[Cell]] = [
        [("image", small), *((n, draw_clusters(w, size)) for n, w in zip(names, winners, strict=True))],
        [
            ("", _color_bar(size)),
            *((f"mean {m.max(0).mean():.0%}", fit_map(heat(m.max(0)), size)) for m in masks),
        ],
        [
            ("its final pixels", _highlight(small, final)),
            *(
                (f"{top_class(stage, query, categories)} · {(w == query).mean():.0%} of pixels", _query(m, query, size))
                for stage, m, w in zip(stages, masks, winners, strict=True)
            ),
        ],
        [("", None), *(("", fit_map(picture, size)) for picture in colors)],
    ]
    return sheet(rows, long_side, [title.format(query=query) for title in _ROWS])


def mask_probabilities(mask_logits: Tensor) -> np.ndarray:
    """Softmax over queries of (N, h, w)."""
    return mask_logits.float().softmax(0).cpu().numpy()


def main_query(final: Prediction) -> int:
    """The query with the most probable class other than void, among those that own a pixel."""
    probability = final.class_logits.float().softmax(-1)[:, :-1].max(-1).values.cpu().numpy()
    owners = np.unique(final.mask_logits.argmax(0).cpu().numpy())
    return int(owners[probability[owners].argmax()])


def top_class(stage: Prediction, query: int, categories: Categories) -> str:
    """The most probable class of a query, void included, with its probability."""
    probability = stage.class_logits[query].float().softmax(-1).cpu().numpy()
    best = int(probability.argmax())
    return f"{(*legible_names(categories), 'void')[best]} {probability[best]:.0%}"


def feature_colors(features: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pixel features, each (D, h, w), as RGB pictures (h, w, 3) uint8.

    Three principal components each. Components have no sign and neighbors may swap, so each picture is rotated
    (orthogonal Procrustes) toward the next one: similar features in two layers then have similar colors.
    """
    pictures: list[np.ndarray] = []
    following: np.ndarray | None = None
    for feature in reversed(features):
        depth, height, width = feature.shape
        points = feature.reshape(depth, -1).T.astype(np.float64)
        points = points - points.mean(0)
        axes = np.linalg.eigh(points.T @ points)[1][:, ::-1][:, :3]
        scores = points @ axes
        scores /= max(scores.std(), 1e-12)
        if following is not None:
            left, _, right = np.linalg.svd(scores.T @ following)
            scores = scores @ (left @ right)
        following = scores
        low, high = np.percentile(scores, (1, 99), axis=0)
        level = np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1)
        if level.shape[1] < 3:
            level = np.pad(level, ((0, 0), (0, 3 - level.shape[1])))
        pictures.append((255 * level).round().astype(np.uint8).reshape(height, width, 3))
    return pictures[::-1]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()


def _query(probabilities: np.ndarray, query: int, size: tuple[int, int]) -> np.ndarray:
    """The mask probability of a query as heat, with a contour around the pixels that are its own."""
    picture = fit_map(heat(probabilities[query]), size)
    picture[contours(fit_map(probabilities.argmax(0) == query, size))] = PAPER
    return picture


def _highlight(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image, dark where the mask is not."""
    picture = np.where(mask[..., None], image, (0.3 * image).astype(np.uint8))
    picture[contours(mask)] = PAPER
    return picture


def _color_bar(size: tuple[int, int]) -> np.ndarray:
    """The colors of probabilities from 0 to 100 %, upward."""
    canvas = Image.new("RGB", size[::-1], PAPER)
    bar = max(8, size[1] // 8)
    face = font(max(size) / 16)
    pad = max(6, round(max(size) / 20))
    length = max(1, size[0] - 2 * pad)
    colors = heat(np.linspace(1, 0, length))[:, None].repeat(bar, 1)
    left = size[1] // 3
    canvas.paste(Image.fromarray(colors), (left, pad))
    pen = ImageDraw.Draw(canvas)
    for text, row in (("100 %", pad), ("50 %", pad + length / 2), ("0 %", pad + length)):
        pen.text((left + bar + pad / 2, row), text, INK, face, "lm")
    return np.asarray(canvas)

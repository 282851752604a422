"""Where two predictions for one image differ; their classes are matched by name."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kmax.categories import Categories
from kmax.metrics.overlaps import Table
from kmax.metrics.panoptic_quality import match_segments
from kmax.structures import PanopticMap, Sample
from kmax.visualization.layout import fit_map

COLOR = (230, 40, 160)
_VOID = -1


@dataclass(frozen=True)
class Difference:
    """`differs` (H, W) bool: where the classes do, void being one; the number of segments of both, and of those that
    match as panoptic quality matches them."""

    differs: np.ndarray
    segments: tuple[int, int]
    matched: int

    @property
    def sentence(self) -> str:
        """The numbers in words."""
        return (
            f"A: {self.segments[0]} segments, B: {self.segments[1]}, {self.matched} of them match (same class, IoU > "
            f"0.5). The class differs on {100 * self.differs.mean():.1f} % of the pixels."
        )

    def draw(self, image: np.ndarray) -> np.ndarray:
        """The image (h, w, 3) in gray, colored where the classes differ."""
        gray = image.mean(2, keepdims=True).repeat(3, 2)
        where = fit_map(self.differs, (image.shape[0], image.shape[1]))
        gray[where] += 0.65 * (np.array(COLOR) - gray[where])
        picture: np.ndarray = gray.round().astype(np.uint8)
        return picture


def compare(maps: tuple[PanopticMap, PanopticMap], categories: tuple[Categories, Categories]) -> Difference:
    """Compare two panoptic maps (H, W) of one image."""
    names = list(dict.fromkeys([*categories[0].names, *categories[1].names]))
    first, second = (_relabeled(one, own, names) for one, own in zip(maps, categories, strict=True))
    labels = _labels(first), _labels(second)
    size = labels[0].shape
    truth = Sample(np.zeros((*size, 3), np.uint8), first.segment_map.numpy(), first.segments, "A")
    matches = match_segments(second, truth, len(names))
    counts = (len(first.segments), len(second.segments))
    return Difference(labels[0] != labels[1], counts, len(matches.row))


def _relabeled(found: PanopticMap, categories: Categories, names: list[str]) -> PanopticMap:
    """The same map with labels that count `names`."""
    segments = tuple(replace(s, label=names.index(categories.names[s.label])) for s in found.segments)
    return PanopticMap(found.segment_map, segments)


def _labels(found: PanopticMap) -> np.ndarray:
    """The label of each pixel (H, W); −1 for void."""
    table = Table(found.segments)
    labels: np.ndarray = np.append(table.label, _VOID)[table.index(found.segment_map.numpy())]
    return labels

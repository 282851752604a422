"""How often a tracker confuses things (the identity switches of the CLEAR MOT metrics)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kmax.metrics.overlaps import check_labels, check_size, overlaps
from kmax.structures import PanopticMap, Sample


class IdentitySwitches:
    """Counts over the frames of one film or of several.

    A thing is found in a frame if a predicted thing, of whatever class, overlaps it with IoU > 1/2; at most one does.
    Its identity has switched if that segment has another id than when the thing was found last, however long ago.

    Attributes:
        visible: things in all frames, crowds left out.
        found: how many of them were found.
        switches: how often the id was another one.
    """

    def __init__(self, is_thing: Sequence[bool]) -> None:
        self.is_thing = is_thing
        self.visible = self.found = self.switches = 0
        self._last: dict[int, int] = {}

    def new_film(self) -> None:
        """The next frame is the first of another film."""
        self._last = {}

    def update(self, prediction: PanopticMap, truth: Sample) -> None:
        """Count one frame; the ids of prediction and truth are identities.

        Raises:
            ValueError: a prediction of another size, or with labels that are not classes.
        """
        check_size(truth, prediction.segment_map.shape)
        check_labels(np.array([s.label for s in prediction.segments]), len(self.is_thing), truth)
        things = {s.id for s in truth.segments if self.is_thing[s.label] and not s.crowd}
        candidates = {s.id for s in prediction.segments if self.is_thing[s.label]}
        true, other, shared = overlaps(truth.segment_map, prediction.segment_map.cpu().numpy())
        areas_true, areas_other = _sums(true, shared), _sums(other, shared)
        self.visible += len(things)
        for thing, segment, common in zip(true.tolist(), other.tolist(), shared.tolist(), strict=True):
            union = areas_true[thing] + areas_other[segment] - common
            if thing not in things or segment not in candidates or not 2 * common > union:
                continue
            self.found += 1
            self.switches += self._last.get(thing, segment) != segment
            self._last[thing] = segment


def _sums(ids: np.ndarray, shared: np.ndarray) -> dict[int, float]:
    """The area of each id."""
    areas: dict[int, float] = {}
    for i, pixels in zip(ids.tolist(), shared.tolist(), strict=True):
        areas[i] = areas.get(i, 0.0) + pixels
    return areas

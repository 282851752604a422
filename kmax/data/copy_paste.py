"""Panoptic copy-paste: segments of a second image are pasted onto the first.

Both images are placed on a canvas of the crop's size H×W, so that pasted segments may cover padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from kmax.data.segment_maps import lookup, positions, smallest_dtype
from kmax.images import pad, pad_array
from kmax.structures import Sample, Segment


@dataclass(frozen=True)
class Canvas:
    """A sample padded to H×W, with the mask (H, W) of the pixels that are not padding."""

    sample: Sample
    valid: np.ndarray


def to_canvas(sample: Sample, size: tuple[int, int], offset: tuple[int, int] = (0, 0)) -> Canvas:
    """Pad image and segment map to `size`; `offset` (rows, columns) is the padding above and to the left of them."""
    image, valid = pad(sample.image, size, offset)
    return Canvas(replace(sample, image=image, segment_map=pad_array(sample.segment_map, size, offset)), valid)


def choose_segments(sample: Sample, is_thing: Sequence[bool], rng: np.random.Generator) -> tuple[Segment, ...]:
    """All things, and a random subset of all segments, whose size is uniform; never crowd."""
    segments = [segment for segment in sample.segments if not segment.crowd]
    kept = {segments[i].id for i in rng.permutation(len(segments))[: rng.integers(len(segments) + 1)]}
    return tuple(segment for segment in segments if is_thing[segment.label] or segment.id in kept)


def paste(below: Canvas, above: Canvas, chosen: Sequence[Segment], is_thing: Sequence[bool]) -> Canvas:
    """Lay the `chosen` segments of one canvas, with their pixels, over another of the same size.

    Pasted stuff joins stuff of the same class; segments that are covered completely stay in the table.
    """
    if not chosen:
        return below
    base, source = below.sample, above.sample
    stuff = {s.label: s.id for s in base.segments if not is_thing[s.label] and not s.crowd}
    next_id = max((segment.id for segment in base.segments), default=0) + 1
    new: list[Segment] = []
    targets: list[int] = []
    for segment in chosen:
        target = stuff.get(segment.label) if not is_thing[segment.label] else None
        if target is None:
            target, next_id = next_id, next_id + 1
            new.append(replace(segment, id=target))
        targets.append(target)
    position = positions(source.segment_map, [segment.id for segment in chosen])
    pasted = lookup(np.array([0, *targets], smallest_dtype(next_id)), position)
    mask = (pasted > 0).view(np.uint8)
    segment_map = cv2.copyTo(pasted, mask, base.segment_map.astype(pasted.dtype))
    image = cv2.copyTo(source.image, mask, base.image.copy())
    sample = replace(base, image=image, segment_map=segment_map, segments=(*base.segments, *new))
    return Canvas(sample, below.valid | mask.view(bool))

"""Panoptic copy-paste: segments of a second image laid over the first.

Both images lie at the top left of a canvas of the crop's size H×W, so that what is pasted may cover padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kmax.data.transforms import drop_hidden, pad
from kmax.structures import Sample, Segment


@dataclass(frozen=True)
class Canvas:
    """A sample padded to H×W, with the mask (H, W) of the pixels that are image."""

    sample: Sample
    valid: np.ndarray


def to_canvas(sample: Sample, size: tuple[int, int]) -> Canvas:
    """Pad image and segment map to `size`."""
    image, valid = pad(sample.image, size)
    segment_map = np.zeros(size, np.int32)
    segment_map[: sample.segment_map.shape[0], : sample.segment_map.shape[1]] = sample.segment_map
    return Canvas(replace(sample, image=image, segment_map=segment_map), valid)


def choose_segments(sample: Sample, is_thing: Sequence[bool], rng: np.random.Generator) -> tuple[Segment, ...]:
    """All things, and a random subset of uniform size of all segments; never crowd."""
    segments = [segment for segment in sample.segments if not segment.crowd]
    kept = {segments[i].id for i in rng.permutation(len(segments))[: rng.integers(len(segments) + 1)]}
    return tuple(segment for segment in segments if is_thing[segment.label] or segment.id in kept)


def paste(below: Canvas, above: Canvas, chosen: Sequence[Segment], is_thing: Sequence[bool]) -> Canvas:
    """Lay the `chosen` segments of one canvas, with their pixels, over another of the same size.

    Pasted stuff joins stuff of the same class; what is covered altogether is dropped.
    """
    if not chosen:
        return below
    base, source = below.sample, above.sample
    stuff = {s.label: s.id for s in base.segments if not is_thing[s.label] and not s.crowd}
    next_id = max((segment.id for segment in base.segments), default=0) + 1
    new: list[Segment] = []
    table = np.zeros(max(segment.id for segment in source.segments) + 1, np.int32)
    for segment in chosen:
        target = stuff.get(segment.label) if not is_thing[segment.label] else None
        if target is None:
            target, next_id = next_id, next_id + 1
            new.append(replace(segment, id=target))
        table[segment.id] = target
    pasted = table[source.segment_map]
    mask = pasted > 0
    sample = replace(
        base,
        image=np.where(mask[..., None], source.image, base.image),
        segment_map=np.where(mask, pasted, base.segment_map),
        segments=(*base.segments, *new),
    )
    return Canvas(drop_hidden(sample), below.valid | mask)

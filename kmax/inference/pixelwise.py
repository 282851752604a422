"""Post-processing pixel by pixel (MaX-DeepLab, arXiv 2012.00759, section 3.2 and appendix).

Every pixel belongs to the slot with its highest mask logit. It keeps that slot if the class probability of the slot and
the mask probability of the pixel, among the slots with a probable class, are high enough. Then segments that are too
small are dropped.

Letters: N slots, K classes without void, h×w mask logits, H×W padded input, H0×W0 result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kmax.geometry import Sizes
from kmax.inference.options import Thresholds
from kmax.inference.resample import resampled
from kmax.numerics import at_least_float32
from kmax.structures import PanopticMap, Segment


@torch.no_grad()
def panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    is_thing: Sequence[bool],
    thresholds: Thresholds,
    sizes: Sizes | None = None,
) -> PanopticMap:
    """Panoptic segmentation of one image.

    A slot is detected if the probability of its best class, under a softmax with void, reaches `thing_threshold` or
    `stuff_threshold`. A pixel keeps its slot if that is detected and its softmax over the detected slots exceeds
    `pixel_threshold`. A thing below `thing_area` pixels is dropped, and so is stuff, whose slots of one class merge,
    below `stuff_area`; pixels are counted at the padded size.

    Args:
        class_logits: (N, K+1), void last.
        mask_logits: (N, h, w).
        is_thing: for each of the K classes.
        thresholds: decide which slots, pixels and segments count.
        sizes: cut to `sizes.content` and resize to `sizes.original`, nearest; without them the result has size h×w.

    Returns:
        A map (H0, W0) on the device of the logits; its segments are numbered from 1 by descending class probability.
    """
    probability, label = at_least_float32(class_logits).softmax(-1)[:, :-1].max(-1)
    thing = torch.tensor(is_thing, device=label.device)[label]
    needed = torch.where(thing, thresholds.thing_threshold, thresholds.stuff_threshold)
    slots = _kept_slots(mask_logits, probability >= needed, thresholds.pixel_threshold, sizes)
    area = torch.bincount(slots.flatten(), minlength=len(label) + 1)
    number, segments = _segments(
        probability.tolist(),
        label.tolist(),
        thing.tolist(),
        area.tolist(),
        thresholds.thing_area,
        thresholds.stuff_area,
    )
    segment_map = torch.tensor(number, dtype=torch.int32, device=slots.device)[_to_original(slots, sizes)]
    left = set(segment_map.unique().tolist())
    return PanopticMap(segment_map, tuple(segment for segment in segments if segment.id in left))


@torch.no_grad()
def semantic(class_logits: Tensor, mask_logits: Tensor, sizes: Sizes | None = None) -> Tensor:
    """The class (H0, W0) int64 of the slot with the highest mask logit at each pixel, whatever its probability."""
    label = class_logits[:, :-1].argmax(-1)
    slots = torch.cat([strip.argmax(-1) for strip in resampled(mask_logits, _padded(sizes))])  # (H, W)
    return label[_to_original(slots, sizes)]


def _kept_slots(mask_logits: Tensor, detected: Tensor, threshold: float, sizes: Sizes | None) -> Tensor:
    """The slot (H, W) of each pixel that keeps it, N where none does."""
    void, strips = len(detected), []
    absent = torch.where(detected, 0.0, -torch.inf).to(mask_logits.device)
    for logits in resampled(mask_logits, _padded(sizes)):  # (rows, W, N)
        top, slot = logits.max(-1)
        share = (
            top - (logits + absent).logsumexp(-1)
        ).exp()  # the slot's probability among the detected slots, if it is one
        strips.append(torch.where(detected[slot] & (share > threshold), slot, void))
    return torch.cat(strips)


def _segments(
    probability: Sequence[float],
    label: Sequence[int],
    thing: Sequence[bool],
    area: Sequence[int],
    thing_area: int,
    stuff_area: int,
) -> tuple[list[int], list[Segment]]:
    """The segment of each slot, 0 for none, with one more 0 at the end for pixels without a slot; and the segments."""
    stuff_pixels: dict[int, int] = {}
    for slot, kind in enumerate(label):
        if not thing[slot]:
            stuff_pixels[kind] = stuff_pixels.get(kind, 0) + area[slot]
    number, segments = [0] * (len(label) + 1), list[Segment]()
    stuff: dict[int, int] = {}
    for slot in sorted(range(len(label)), key=lambda slot: -probability[slot]):
        kind = label[slot]
        pixels, least = (area[slot], thing_area) if thing[slot] else (stuff_pixels[kind], stuff_area)
        if not area[slot] or pixels < least:
            continue
        number[slot] = len(segments) + 1 if thing[slot] else stuff.setdefault(kind, len(segments) + 1)
        if number[slot] > len(segments):
            segments.append(Segment(number[slot], kind, score=probability[slot]))
    return number, segments


def _padded(sizes: Sizes | None) -> Sizes | None:
    """Sizes with which `resampled` resizes to the padded size and no further."""
    return sizes and replace(sizes, content=sizes.padded, original=sizes.padded)


def _to_original(values: Tensor, sizes: Sizes | None) -> Tensor:
    """Values (H, W) of the padded image cut to the content and resized, nearest, to the original (H0, W0)."""
    if sizes is None:
        return values
    rows, columns = (
        _nearest(content, original).to(values.device)
        for content, original in zip(sizes.content, sizes.original, strict=True)
    )
    return values[rows][:, columns]


def _nearest(length: int, target: int) -> Tensor:
    """Index (target,) of the nearest of `length` cells, ends aligned: ⌊i·(length − 1)/(target − 1) + ½⌋."""
    i = torch.arange(target)
    step = max(target - 1, 1)
    return (2 * i * (length - 1) + step) // (2 * step)

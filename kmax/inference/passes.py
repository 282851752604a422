"""From an image to logits and from logits to results, for validation and `Predictor` alike.

An image may pass through the network several times, at several scales and mirrored. Queries are slots, not classes: a
query may hold different objects in different passes. So each pass is first aligned with the reference pass (the scale
nearest to 1, not mirrored), in its pixels and in the order of its queries. The segment of a query is the set of pixels
where its mask probability is the largest. Two queries of two passes correspond if the IoU of their segments exceeds
one half; segments of a pass are disjoint, so there is at most one such pair per query, as in panoptic quality. A query
without a counterpart keeps its values of the reference pass. Then class and mask probabilities are averaged over the
passes. The result is their logarithm, that is, logits again, so that one post-processing serves all.

Letters: N queries, K classes without void, h×w mask logits, H×W padded input, H0×W0 image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kmax.geometry import Sizes, content_cells
from kmax.images import pad
from kmax.inference.options import InferenceOptions, Thresholds
from kmax.inference.postprocess import instances, panoptic, semantic
from kmax.inference.preprocess import normalize
from kmax.inference.resample import resample_pass
from kmax.numerics import at_least_float32
from kmax.structures import Output, Prediction, Segmentations

STRIDE = 32  # of the coarsest feature


class Logits(NamedTuple):
    """The output of the network for one image: `class_logits` (N, K+1) with void last, `mask_logits` (N, h, w) with the
    padding, and the `sizes` of the image on its way."""

    class_logits: Tensor
    mask_logits: Tensor
    sizes: Sizes


def run_network(
    model: Callable[..., Output], images: Tensor, valid: Tensor, coarse: bool = False
) -> tuple[Prediction, ...]:
    """Images to logits, the only place: uint8 RGB (B, 3, H, W) and the mask (B, H, W) of pixels that are not padding →
    the final prediction, or with `coarse` the predictions of all layers, coarse to final."""
    return model(normalize(images, valid), coarse=coarse).predictions


@torch.no_grad()
def predict(
    model: Callable[..., Output],
    image: np.ndarray,
    size: Sequence[int],
    options: InferenceOptions,
    device: torch.device | str = "cpu",
) -> Logits:
    """Run the network on one image, once or several times, and average.

    Args:
        model: takes normalized images (1, 3, H, W) and `coarse`.
        image: (H0, W0, 3) uint8 RGB.
        size: (H, W) that the image is fitted into at scale 1.
    """
    reference, *others = (
        (_run(model, image, pass_sizes(size, image.shape, scale, options.pad), mirrored, device), mirrored)
        for scale, mirrored in options.passes
    )
    return average(reference[0], others) if others else reference[0]


def postprocess_logits(
    logits: Logits,
    is_thing: Sequence[bool],
    thresholds: Thresholds,
    with_semantic: bool = False,
    with_instances: bool = False,
) -> Segmentations:
    """Post-process the logits of one image into results of the image's own size, on their device."""
    classes, masks, sizes = logits
    return Segmentations(
        panoptic(classes, masks, is_thing, thresholds, sizes),
        semantic(classes, masks, sizes, thresholds) if with_semantic else None,
        instances(classes, masks, is_thing, thresholds, sizes) if with_instances else None,
    )


def pass_sizes(size: Sequence[int], image_size: Sequence[int], scale: float, padding: bool) -> Sizes:
    """The sizes of an image in a pass: fitted into `size` × `scale` and padded to that whole
    size, or to the next size that fits the strides: 32k+1 along an axis where `size` is odd, otherwise 32k."""
    extra = [side % 2 for side in size]
    box = [STRIDE * max(1, round((side - e) * scale / STRIDE)) + e for side, e in zip(size, extra, strict=True)]
    if scale == 1:
        box = list(size)  # kept even if it does not fit the strides
    sizes = Sizes.fit(box, image_size[:2])
    if padding:
        return sizes
    tight = [min(b, -(-(c - e) // STRIDE) * STRIDE + e) for b, c, e in zip(box, sizes.content, extra, strict=True)]
    height, width = (max(t, min(b, STRIDE + e)) for t, b, e in zip(tight, box, extra, strict=True))
    return Sizes((height, width), sizes.content, sizes.original)


def _run(
    model: Callable[..., Output], image: np.ndarray, sizes: Sizes, mirrored: bool, device: torch.device | str
) -> Logits:
    height, width = sizes.content
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    padded, valid = pad(resized[:, ::-1] if mirrored else resized, sizes.padded)
    images = torch.as_tensor(padded).permute(2, 0, 1)[None].to(device)  # (H, W, 3) → (1, 3, H, W)
    final = run_network(model, images, torch.as_tensor(valid)[None].to(device))[-1]
    return Logits(final.class_logits[0], final.mask_logits[0], sizes)


@torch.no_grad()
def average(reference: Logits, others: Sequence[tuple[Logits, bool]]) -> Logits:
    """The mean of several passes over one image, aligned with `reference`; `others` are pairs (pass, mirrored)."""
    cells = (reference.mask_logits.shape[1], reference.mask_logits.shape[2])
    classes, masks = (
        at_least_float32(reference.class_logits).softmax(-1),
        at_least_float32(reference.mask_logits).softmax(0),
    )
    class_sum, mask_sum = classes.clone(), masks.clone()
    for other, mirrored in others:
        aligned = resample_pass(other.mask_logits, other.sizes, reference.sizes, cells, mirrored).softmax(0)
        own = corresponding(masks, aligned, content_cells(reference.sizes, cells))
        found = own >= 0
        class_sum += torch.where(found[:, None], at_least_float32(other.class_logits).softmax(-1)[own], classes)
        for query in range(len(masks)):  # one plane at a time: all at once would double the memory
            mask_sum[query] += aligned[own[query]] if found[query] else masks[query]
    tiny = torch.finfo(mask_sum.dtype).tiny
    count = len(others) + 1
    return Logits((class_sum / count).clamp(min=tiny).log(), (mask_sum / count).clamp(min=tiny).log(), reference.sizes)


def corresponding(reference: Tensor, other: Tensor, content: tuple[int, int]) -> Tensor:
    """For each query of `reference` (N, h, w), the query of `other` (N, h, w) whose segment overlaps its own with an
    IoU above ½, or −1; (N,). Only the first `content` rows and columns count."""
    count = len(reference)
    rows, columns = content
    a, b = (masks[:, :rows, :columns].argmax(0).flatten() for masks in (reference, other))  # (rows·columns,) each
    shared = torch.bincount(a * count + b, minlength=count * count).view(count, count)
    union = shared.sum(1)[:, None] + shared.sum(0)[None] - shared
    best, index = (2 * shared - union).max(1)  # > 0 where the IoU exceeds ½
    return torch.where(best > 0, index, -1)

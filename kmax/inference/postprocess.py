"""From the logits of one image to a panoptic map, a semantic map or instances (paper: §4.1 and appendix).

No full-size map per query is ever stored. Both bilinear resizes, to the padded size and on to the original size, are
linear and separable, so they are composed once into a few taps per axis; then strips of rows are resized and
softmaxed, and only claims with p > `pixel_threshold` are kept: at 0.4, at most two per pixel. MaX-DeepLab's
post-processing is in pixelwise.py.

Letters: N queries, K classes without void, h×w mask logits, H×W padded input, H0×W0 result, T taps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kmax.geometry import Sizes
from kmax.inference import pixelwise
from kmax.inference.options import COCO, Thresholds
from kmax.inference.resample import probabilities
from kmax.inference.specks import without_specks
from kmax.numerics import at_least_float32
from kmax.run_lengths import encode
from kmax.structures import Instances, PanopticMap, Segment

_PIECE = 2**22  # pixels that are processed at a time


class _Claims(NamedTuple):
    """The queries that claim a pixel with p > threshold: `planes` (k, H0·W0) int16 hold them, N = none; `size` is
    (H0, W0). For each query its number of pixels `area` (N,) int64, and their mean p `confidence` (N,) float64."""

    planes: Tensor
    size: tuple[int, int]
    area: Tensor
    confidence: Tensor


@torch.no_grad()
def panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    is_thing: Sequence[bool],
    thresholds: Thresholds = COCO,
    sizes: Sizes | None = None,
) -> PanopticMap:
    """Panoptic segmentation of one image, by the method that the thresholds name.

    Args:
        class_logits: (N, K+1), void last.
        mask_logits: (N, h, w).
        is_thing: for each of the K classes.
        thresholds: decide which queries and pixels count.
        sizes: resize to `sizes.original`; without them the result has size h×w.

    Returns:
        A map (H0, W0) on the device of the logits; its segments are numbered from 1 by descending score.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    _check(class_logits, mask_logits, is_thing)
    if thresholds.method == "pixel_wise":
        found = pixelwise.panoptic(class_logits, mask_logits, is_thing, thresholds, sizes)
    else:
        found = _mask_wise(class_logits, mask_logits, is_thing, thresholds, sizes)
    return without_specks(found, thresholds.min_area)


def _mask_wise(
    class_logits: Tensor, mask_logits: Tensor, is_thing: Sequence[bool], thresholds: Thresholds, sizes: Sizes | None
) -> PanopticMap:
    """`panoptic` by the method of kMaX-DeepLab."""
    claims = _claims(mask_logits, thresholds.pixel_threshold, sizes)
    probability, label = at_least_float32(class_logits).softmax(-1)[:, :-1].max(-1)
    # In pieces, so that temporary tensors stay small next to a large image; a patch may then occur several times.
    claimants, areas = list[Tensor](), list[Tensor]()
    patches = start = 0
    segment_map = torch.empty(claims.planes.shape[1], dtype=torch.int32, device=mask_logits.device)
    for piece in claims.planes.split(_PIECE, dim=1):
        patch_of, found, patch_area = _patches(piece, len(mask_logits))
        segment_map[start : start + len(patch_of)] = patch_of + patches
        claimants.append(found)
        areas.append(patch_area)
        patches += len(patch_area)
        start += len(patch_of)
    queries = torch.stack([x.double() for x in (probability, label, claims.area, claims.confidence)])
    owner, segments = _merge(
        queries.cpu().numpy(), torch.cat(claimants).cpu().numpy(), torch.cat(areas).cpu().numpy(), is_thing, thresholds
    )
    owners = torch.as_tensor(owner, device=mask_logits.device)
    for part in segment_map.split(_PIECE):
        part.copy_(owners[part])
    return PanopticMap(segment_map.reshape(claims.size), segments)


@torch.no_grad()
def semantic(
    class_logits: Tensor, mask_logits: Tensor, sizes: Sizes | None = None, thresholds: Thresholds = COCO
) -> Tensor:
    """The class (H0, W0) int32 with the highest score at each pixel, by the method that the thresholds name; the
    arguments are those of `panoptic`."""
    if thresholds.method == "pixel_wise":
        _check(class_logits, mask_logits)
        return pixelwise.semantic(class_logits, mask_logits, sizes)
    height, width = sizes.original if sizes else mask_logits.shape[1:]
    result = torch.empty(height, width, dtype=torch.int32, device=mask_logits.device)
    start = 0
    for scores in semantic_scores(class_logits, mask_logits, sizes):
        result[start : start + len(scores)] = scores.argmax(-1)
        start += len(scores)
    return result


@torch.no_grad()
def semantic_scores(class_logits: Tensor, mask_logits: Tensor, sizes: Sizes | None = None) -> Iterator[Tensor]:
    """Σ_n π_n·p_n in strips of rows, from top to bottom, each (rows, W0, K)."""
    _check(class_logits, mask_logits)
    classes = at_least_float32(class_logits).softmax(-1)[:, :-1]
    for strip in probabilities(mask_logits, sizes):
        with torch.autocast(strip.device.type, enabled=False):
            yield strip @ classes.to(strip.dtype)


@torch.no_grad()
def instances(
    class_logits: Tensor,
    mask_logits: Tensor,
    is_thing: Sequence[bool],
    thresholds: Thresholds = COCO,
    sizes: Sizes | None = None,
    top: int = 100,
) -> Instances:
    """Instance segmentation of one image: the things among the `top` best (query, class) pairs.

    A score is the class probability × the mean mask probability inside the mask; an empty mask scores 0. The other
    arguments are those of `panoptic`.
    """
    _check(class_logits, mask_logits, is_thing)
    classes = at_least_float32(class_logits).softmax(-1)[:, :-1]
    best, pair = classes.flatten().topk(min(top, classes.numel()))
    query, label = pair // classes.shape[1], pair % classes.shape[1]
    thing = torch.tensor(is_thing, device=label.device)[label]
    best, query, label = best[thing], query[thing], label[thing]
    claims = _claims(mask_logits, thresholds.pixel_threshold, sizes)
    scores, order = (best * claims.confidence[query].to(best.dtype)).sort(descending=True, stable=True)
    chosen = query[order].tolist()
    masks = encode(claims.planes.unflatten(1, claims.size).cpu().numpy(), chosen)
    large = [i for i, number in enumerate(chosen) if masks[number].area >= thresholds.min_area]
    if len(large) < len(chosen):
        order, scores = order[large], scores[large]
    return Instances(claims.size, tuple(masks[chosen[i]] for i in large), label[order], scores)


def _check(class_logits: Tensor, mask_logits: Tensor, is_thing: Sequence[bool] | None = None) -> None:
    shapes = f"class_logits {tuple(class_logits.shape)} and mask_logits {tuple(mask_logits.shape)}"
    if class_logits.ndim != 2 or mask_logits.ndim != 3 or len(class_logits) != len(mask_logits):
        raise ValueError(f"Post-processing takes the logits (N, K+1) and (N, h, w) of one image, not {shapes}.")
    if is_thing is not None and class_logits.shape[1] != len(is_thing) + 1:
        raise ValueError(f"{len(is_thing)} categories do not fit {shapes}: use those that the model was trained with.")


def _claims(mask_logits: Tensor, threshold: float, sizes: Sizes | None) -> _Claims:
    """The claims of all pixels, collected strip by strip."""
    num_queries, device = len(mask_logits), mask_logits.device
    height, width = sizes.original if sizes else mask_logits.shape[1:]
    # At most 1/threshold queries can exceed it, up to rounding. The planes are allocated before the strips, so that
    # they do not fragment the memory which the strips free.
    depth = min(num_queries, int(1 / threshold + 1e-3)) if threshold > 0 else num_queries
    planes = torch.full((depth, height * width), num_queries, dtype=torch.int16, device=device)
    area = torch.zeros(num_queries, dtype=torch.int64, device=device)
    total = torch.zeros(num_queries, dtype=torch.float64, device=device)
    start = 0
    for strip in probabilities(mask_logits, sizes):
        strip = strip.flatten(0, 1)  # (rows, W0, N) → (rows·W0, N)
        pixel, query = _where(strip > threshold)  # ordered by pixel
        claimants = torch.bincount(pixel, minlength=len(strip))
        rank = torch.arange(len(pixel), device=device) - (claimants.cumsum(0) - claimants)[pixel]
        planes[rank, start + pixel] = query.to(torch.int16)
        area += torch.bincount(query, minlength=num_queries)
        total.index_add_(0, query, strip[pixel, query].double())
        start += len(strip)
    return _Claims(planes, (height, width), area, total / area.clamp(min=1))


def _where(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns of the true values of a contiguous `mask` (P, N), row by row."""
    if mask.device.type == "cpu":  # of few true values, ten times as fast as PyTorch's
        flat = torch.from_numpy(np.flatnonzero(mask.numpy()))
        return flat.div(mask.shape[1], rounding_mode="floor"), flat % mask.shape[1]
    row, column = mask.nonzero(as_tuple=True)
    return row, column


def _patches(planes: Tensor, num_queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Group pixels with the same claimants into U patches: the patch (H0·W0,) of each pixel; the claimants (U, k) and
    the area (U,) of each patch."""
    patch = torch.zeros_like(planes[0], dtype=torch.int64)
    claimants, area = patch.new_zeros(1, 0), patch.new_tensor([len(patch)])
    for plane in planes:
        limit = len(area) * (num_queries + 1)
        keys, patch, area = _unique(patch.mul_(num_queries + 1).add_(plane), limit)
        before, query = keys // (num_queries + 1), keys % (num_queries + 1)
        claimants = torch.cat([claimants[before], query[:, None]], 1)
    return patch, claimants, area


def _unique(keys: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """`torch.unique` with inverse and counts; if `limit`, which all keys are below, is small, by counting."""
    if limit > 2**22:
        unique, inverse, counts = torch.unique(keys, return_inverse=True, return_counts=True)
        return unique, inverse, counts
    counts = torch.bincount(keys, minlength=limit)
    unique = counts.nonzero()[:, 0]
    number = torch.zeros_like(counts).index_copy_(0, unique, torch.arange(len(unique), device=keys.device))
    return unique, number[keys], counts[unique]


def _merge(
    queries: np.ndarray,
    claimants: np.ndarray,
    patch_area: np.ndarray,
    is_thing: Sequence[bool],
    thresholds: Thresholds,
) -> tuple[np.ndarray, tuple[Segment, ...]]:
    """Assign the patches to the queries, by descending score; `queries` (4, N) holds class probability, label, area and
    confidence.

    Returns the segment id of each patch, (U,) int32 with 0 = void, and the segments.
    """
    probability, label, area, confidence = queries
    owner = np.zeros(len(claimants), dtype=np.int32)
    scores = probability**thresholds.alpha * confidence**thresholds.beta
    segments: list[Segment] = []
    stuff: dict[int, int] = {}
    for query in np.argsort(-scores, kind="stable"):
        kind = int(label[query])
        thing = is_thing[kind]
        if not probability[query] > (thresholds.thing_threshold if thing else thresholds.stuff_threshold):
            continue
        free = (claimants == query).any(1) & (owner == 0)
        if not patch_area[free].sum() > thresholds.overlap * area[query]:
            continue
        segment_id = len(segments) + 1 if thing else stuff.setdefault(kind, len(segments) + 1)
        owner[free] = segment_id
        if segment_id > len(segments):
            segments.append(Segment(segment_id, kind, score=float(scores[query])))
    return owner, tuple(segments)

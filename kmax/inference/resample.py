"""Resampling of logit maps: from the network's cells to the pixels of the original image, or to another pass's cells.

Letters: N queries, h×w mask logits, H0×W0 result, T taps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from kmax.geometry import Sizes, align_corners
from kmax.numerics import at_least_float32

_STRIP_ELEMENTS = {"cpu": 2**20, "cuda": 2**25}  # fits the caches of a CPU, and a small part of a GPU's memory


def probabilities(mask_logits: Tensor, sizes: Sizes | None) -> Iterator[Tensor]:
    """Softmax over queries of the resized mask logits, in strips of rows (rows, W0, N)."""
    return (strip.softmax(-1) for strip in resampled(mask_logits, sizes))


def resampled(mask_logits: Tensor, sizes: Sizes | None) -> Iterator[Tensor]:
    """The mask logits (N, h, w) at the original size, in strips of rows (rows, W0, N)."""
    # (N, h, w) → (h·w, N) → (h, w, N): everything below runs along N. Two axes are exchanged faster than three.
    pixels = at_least_float32(mask_logits).flatten(1).t().contiguous().unflatten(0, mask_logits.shape[1:])
    rows, columns = (_taps(pixels.shape[axis], axis, sizes) for axis in (0, 1))
    budget = _STRIP_ELEMENTS.get(pixels.device.type, 2**22)
    step = max(1, budget // (len(columns.first) * pixels.shape[2]))
    for strip in zip(*(taps.split(step) for taps in rows), strict=True):
        yield _resample(_resample(pixels, 0, _Taps(*strip)), 1, columns)


class _Taps(NamedTuple):
    """Linear resampling along an axis: output o is Σ_t `weights`[o, t] · input[`first`[o] + t]."""

    first: Tensor
    weights: Tensor


def _taps(length: int, axis: int, sizes: Sizes | None) -> _Taps:
    """Composed resizing: from `length` cells to the padded size, cropped to the content, to the original size.

    As in the model, corners are aligned for odd widths (32k+1), where cells sit on pixels 0, s, 2s, …
    """
    if sizes is None:
        return _Taps(torch.arange(length), torch.ones(length, 1, dtype=torch.float64))
    padded, content, original = sizes.padded[axis], sizes.content[axis], sizes.original[axis]
    aligned = align_corners(sizes.padded[1])
    index, weight = bilinear(length, padded, aligned)
    if content != padded or content != original:
        second, second_weight = bilinear(content, original, aligned)
        index = index[second].flatten(1)
        weight = (second_weight[..., None] * weight[second]).flatten(1)
    first = index.amin(1)
    offset = index - first[:, None]
    taps = torch.zeros(len(first), int(offset.max()) + 1, dtype=weight.dtype).scatter_add_(1, offset, weight)
    return _Taps(first, taps)


def _resample(values: Tensor, axis: int, taps: _Taps) -> Tensor:
    """Replace `axis` (0 or 1) of `values` (rows, columns, N) by its resampled values."""
    count = taps.weights.shape[1]
    # Past the end the weight is 0.
    index = (taps.first[:, None] + torch.arange(count)).clamp_(max=values.shape[axis] - 1)
    index, weights = index.to(values.device), taps.weights.to(values)  # (O, T), (O, T)
    if values.device.type == "cpu":
        return _weighted_sum(values, axis, index, weights)
    weights = weights[:, :, None, None] if axis == 0 else weights[:, :, None]
    result = values.index_select(axis, index[:, 0]).mul_(weights[:, 0])
    for tap in range(1, count):
        result.addcmul_(values.index_select(axis, index[:, tap]), weights[:, tap])
    return result


def _weighted_sum(values: Tensor, axis: int, index: Tensor, weights: Tensor) -> Tensor:
    """`_resample` in one pass over memory: embeddings are weighted sums of the rows of a table, here of all N values of
    a pixel. `index` and `weights` are (O, T)."""
    rows, columns, _ = values.shape
    if axis == 0:
        pixel = index[:, None] * columns + torch.arange(columns)[:, None]  # (O, columns, T)
        weights = weights[:, None].expand_as(pixel)
    else:
        pixel = index + torch.arange(rows)[:, None, None] * columns  # (rows, O, T)
        weights = weights.expand_as(pixel)
    total: Tensor = embedding_bag(
        pixel.flatten(0, 1), values.flatten(0, 1), mode="sum", per_sample_weights=weights.flatten(0, 1)
    )
    return total.view(*pixel.shape[:2], -1)  # (pixels, N) → (rows, columns, N)


def bilinear(length: int, target: int, aligned: bool) -> tuple[Tensor, Tensor]:
    """Indices and weights, each (target, 2), of linear interpolation from `length` to `target` cells."""
    position = torch.arange(target, dtype=torch.float64)
    if aligned:
        position = position * ((length - 1) / max(target - 1, 1))
    else:
        position = ((position + 0.5) * (length / target) - 0.5).clamp(min=0)
    low = position.long().clamp(max=length - 1)
    fraction = position - low
    return torch.stack([low, (low + 1).clamp(max=length - 1)], 1), torch.stack([1 - fraction, fraction], 1)


def resample_pass(other: Tensor, other_sizes: Sizes, sizes: Sizes, cells: tuple[int, int], mirrored: bool) -> Tensor:
    """Mask logits (N, h, w) of a pass, resampled at the `cells` of another pass with other `sizes`."""
    logits = at_least_float32(other)
    aligned = align_corners(sizes.padded[1])
    for axis in (0, 1):
        position = _positions(axis, sizes, cells[axis], other_sizes, logits.shape[axis + 1], mirrored, aligned)
        low = position.floor().long().clamp(max=logits.shape[axis + 1] - 1)
        high = (low + 1).clamp(max=logits.shape[axis + 1] - 1)
        shape = (-1, 1) if axis == 0 else (-1,)
        weight = (position - low).to(logits).view(shape)
        low, high = low.to(logits.device), high.to(logits.device)
        logits = torch.lerp(logits.index_select(axis + 1, low), logits.index_select(axis + 1, high), weight)
    return logits


def _positions(
    axis: int, sizes: Sizes, cells: int, other: Sizes, other_cells: int, mirrored: bool, aligned: bool
) -> Tensor:
    """Positions (cells,) of the `cells` of one pass among the cells of another, along an axis; cells beyond the content
    get the position of its end.

    With aligned corners the first and the last cell sit on the first and the last pixel, otherwise a cell is as many
    pixels wide as the stride. The contents of the two passes correspond in the same way.
    """
    index = torch.arange(cells, dtype=torch.float64)
    shift = 0.0 if aligned else 0.5
    less = 1 if aligned else 0

    def stride(padded: int, count: int) -> float:
        return (padded - less) / max(count - less, 1)

    pixel = (index + shift) * stride(sizes.padded[axis], cells)
    part = (pixel / max(sizes.content[axis] - less, 1)).clamp(max=1)
    if mirrored and axis == 1:
        part = 1 - part
    position = part * (other.content[axis] - less) / stride(other.padded[axis], other_cells) - shift
    return position.clamp(min=0, max=other_cells - 1)

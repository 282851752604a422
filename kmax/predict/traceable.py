"""Around the network, in a form that exporters can trace: an image is fitted, logits become a panoptic map.

Results equal those of `kmax.images.resize_and_pad` and of `kmax.inference.postprocess`, the definitions; here every
size of the image is a variable, and nothing depends on data but values and the number of segments. That costs memory:
N·H0·W0 probabilities are there at once.

Letters: N queries, K classes without void, h×w mask logits, H×W padded input, H0×W0 image, S segments.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kmax.geometry import align_corners
from kmax.inference.options import Thresholds
from kmax.inference.resample import bilinear

_BITS = 22  # of Pillow's weights, which are integers

Segments = tuple[Tensor, Tensor, Tensor, Tensor]
"""The map (H0, W0) int32, 0 = void; of its segments the ids (S,) int64, labels (S,) int64 and scores (S,) float32."""


def lengths(image: Tensor) -> Tensor:
    """Height and width of an image (H0, W0, 3) as a tensor (2,) float64."""
    return torch.stack([torch.full((), image.shape[axis], dtype=torch.float64) for axis in (0, 1)])


def content_size(original: Tensor, size: tuple[int, int]) -> Tensor:
    """Rows and columns (2,) int64 of an image of size `original` (2,) that is fitted into `size`."""
    scale = (torch.tensor(size, dtype=torch.float64) / original).min()
    return (original * scale).round().long().clamp(min=1).minimum(torch.tensor(size))


def resize_and_pad(image: Tensor, content: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (H0, W0, 3) uint8 resized to `content` (2,) as Pillow does it (bilinear), padded to (H, W, 3) uint8.

    Pillow 13 begins with the rows of some tall images, which moves a value by one at most.
    """
    pixels = image.permute(2, 0, 1).double()  # products of integers: exact
    rows, columns = (_pillow_weights(image.shape[axis], content[axis], size[axis]) for axis in (0, 1))
    pixels = _rounded(pixels @ columns.T)  # (3, H0, W): Pillow rounds between its two passes
    return _rounded(rows @ pixels).permute(1, 2, 0).to(torch.uint8)


def _pillow_weights(length: int, content: Tensor, padded: int) -> Tensor:
    """Pillow's integer weights (padded, length) of a bilinear, antialiased resize to `content`; 0 on the padding."""
    scale = torch.full((), length, dtype=torch.float64) / content
    support = scale.clamp(min=1)
    center = (torch.arange(padded, dtype=torch.float64)[:, None] + 0.5) * scale
    pixel = torch.arange(length, dtype=torch.float64)
    inside = (pixel >= (center - support + 0.5).floor()) & (pixel < (center + support + 0.5).floor())
    weight = (1 - ((pixel - center + 0.5) / support).abs()).clamp(min=0) * inside
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-12)
    return (weight * (1 << _BITS) + 0.5).floor() * (torch.arange(padded)[:, None] < content)


def _rounded(values: Tensor) -> Tensor:
    return ((values + (1 << (_BITS - 1))) / (1 << _BITS)).floor().clamp(0, 255)


def panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    is_thing: Sequence[bool],
    thresholds: Thresholds,
    size: tuple[int, int],
    content: Tensor,
    image: Tensor,
) -> Segments:
    """`kmax.inference.postprocess.panoptic` of the logits (N, K+1) and (N, h, w) of an `image` (H0, W0, 3)."""
    probability, label = class_logits.softmax(-1)[:, :-1].max(-1)
    thing = torch.tensor(is_thing)[label]
    if thresholds.method == "pixel_wise":
        found = _pixel_wise(probability, label, thing, mask_logits, thresholds, size, content, image)
    else:
        cells = mask_logits.shape[1:]
        aligned = align_corners(size[1])
        rows, columns = (_composed(cells[i], size[i], content[i], image.shape[i], aligned) for i in (0, 1))
        p = (rows @ mask_logits @ columns.T).softmax(0)  # (N, H0, W0)
        claims = p > thresholds.pixel_threshold
        area = claims.sum((1, 2))
        confidence = (p * claims).sum(2).double().sum(1) / area.clamp(min=1)
        score = probability.double() ** thresholds.alpha * confidence**thresholds.beta
        needed = torch.where(thing, thresholds.thing_threshold, thresholds.stuff_threshold)
        found = _merged(claims, area, score, label, thing, probability > needed, thresholds.overlap, len(is_thing))
    return _without_specks(*found, thresholds.min_area) if thresholds.min_area else found


def _without_specks(segment_map: Tensor, ids: Tensor, labels: Tensor, scores: Tensor, min_area: int) -> Segments:
    """`kmax.inference.specks.without_specks`."""
    pixels = ids[:, None] == segment_map.flatten()  # (S, H0·W0)
    large = pixels.sum(1) >= min_area
    number = large.cumsum(0)
    ranks = large.nonzero()[:, 0]
    renumbered = (pixels * (number * large)[:, None]).sum(0).int().reshape(segment_map.shape)
    return renumbered, number[ranks], labels[ranks], scores[ranks]


def _merged(
    claims: Tensor,
    area: Tensor,
    score: Tensor,
    label: Tensor,
    thing: Tensor,
    probable: Tensor,
    overlap: float,
    classes: int,
) -> Segments:
    """Queries take their free pixels by descending score; `claims` (N, H0, W0), the others (N,)."""
    order = _descending(score)
    claims, area, score, label, thing, probable = (x[order] for x in (claims, area, score, label, thing, probable))
    of_class = torch.arange(classes) == label[:, None]  # (N, K)
    owner = torch.zeros_like(claims[0], dtype=torch.int32)
    stuff_id, count, opened = torch.zeros(classes, dtype=torch.int32), torch.zeros((), dtype=torch.int32), []
    for n in range(len(score)):
        free = claims[n] & (owner == 0)
        kept = probable[n] & (free.sum() > overlap * area[n].double())
        known = torch.where(of_class[n], stuff_id, 0).max()
        joins = ~thing[n] & (known > 0)
        number = torch.where(joins, known, count + 1)
        owner = torch.where(free & kept, number, owner)
        opens = kept & ~joins
        count = count + opens.int()
        stuff_id = torch.where(of_class[n] & opens & ~thing[n], number, stuff_id)
        opened.append(opens)
    ranks = torch.stack(opened).nonzero()[:, 0]
    return owner, torch.ones_like(ranks).cumsum(0), label[ranks], score[ranks].float()


def _pixel_wise(
    probability: Tensor,
    label: Tensor,
    thing: Tensor,
    mask_logits: Tensor,
    thresholds: Thresholds,
    size: tuple[int, int],
    content: Tensor,
    image: Tensor,
) -> Segments:
    """`kmax.inference.pixelwise.panoptic`."""
    count = len(probability)
    needed = torch.where(thing, thresholds.thing_threshold, thresholds.stuff_threshold)
    detected = probability >= needed
    rows, columns = (
        _bilinear_matrix(mask_logits.shape[i + 1], size[i], align_corners(size[1])).float() for i in (0, 1)
    )
    logits = rows @ mask_logits @ columns.T  # (N, H, W)
    top, slot = logits.max(0)
    absent = torch.where(detected, 0.0, -torch.inf)[:, None, None]
    share = (top - (logits + absent).logsumexp(0)).exp()
    slots = torch.where(detected[slot] & (share > thresholds.pixel_threshold), slot, count)
    area = (slots.flatten() == torch.arange(count)[:, None]).sum(1)
    same = label[:, None] == label
    of_class = (same * torch.where(thing, 0, area)).sum(1)
    enough = (thing & (area >= thresholds.thing_area)) | (~thing & (of_class >= thresholds.stuff_area))
    large = enough & (area > 0)
    order = _descending(probability)
    score = probability[order]
    label, thing, large, same = label[order], thing[order], large[order], same[order][:, order]
    first = (same & (large & ~thing)).int().argmax(1)  # of its class, in this order
    opens = large & (thing | (first == torch.arange(count)))
    number = opens.cumsum(0)
    number = torch.where(large, torch.where(thing, number, number[first]), 0)
    table = torch.zeros(count + 1, dtype=torch.int64).scatter(0, order, number)
    indices = [_nearest(content[axis], image.shape[axis]) for axis in (0, 1)]
    segment_map = table[slots[indices[0]][:, indices[1]]]
    left = torch.zeros(count + 1, dtype=torch.int64).scatter(
        0, segment_map.flatten(), torch.ones_like(segment_map.flatten())
    )
    ranks = (opens & (left[number] > 0)).nonzero()[:, 0]
    return segment_map.int(), number[ranks], label[ranks], score[ranks].float()


def _descending(score: Tensor) -> Tensor:
    """The order (N,) of descending scores; equal ones keep theirs, as a stable sort does it, which ONNX has not."""
    index = torch.arange(len(score))
    above = (score > score[:, None]) | ((score == score[:, None]) & (index < index[:, None]))
    return torch.zeros_like(index).scatter(0, above.sum(1), index)


def _composed(length: int, padded: int, content: Tensor, original: int, aligned: bool) -> Tensor:
    """The matrix (original, length) of both resizes: to the padded size, cut to the content, to the original size."""
    first = _bilinear_matrix(length, padded, aligned)
    position = torch.arange(original, dtype=torch.float64)
    target = torch.full((), original, dtype=torch.float64)
    if aligned:
        position = position * ((content - 1) / (target - 1).clamp(min=1))
    else:
        position = ((position + 0.5) * (content / target) - 0.5).clamp(min=0)
    low = position.long().minimum(content - 1)
    fraction = (position - low)[:, None]
    high = (low + 1).minimum(content - 1)
    return (first[low] * (1 - fraction) + first[high] * fraction).float()


def _bilinear_matrix(length: int, target: int, aligned: bool) -> Tensor:
    """Linear interpolation from `length` to `target` cells as a matrix (target, length) float64."""
    index, weight = bilinear(length, target, aligned)
    cells = torch.eye(length, dtype=torch.float64)
    return cells[index[:, 0]] * weight[:, :1] + cells[index[:, 1]] * weight[:, 1:]


def _nearest(content: Tensor, original: int) -> Tensor:
    """Index (original,) of the nearest of `content` rows or columns, ends aligned."""
    step = (torch.full((), original, dtype=torch.int64) - 1).clamp(min=1)
    return torch.div(2 * torch.arange(original) * (content - 1) + step, 2 * step, rounding_mode="floor")

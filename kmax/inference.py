"""From an image to logits and on to results: the one way that validation and `Predictor` share.

An image may pass through the network several times, at other scales and mirrored. Queries are slots, not classes: a
query may hold another object in another pass. So a pass is first brought into the frame and the order of the
reference pass (the scale nearest to 1, not mirrored): each query's segment there, the pixels where its mask
probability is the largest, is looked up in the other pass, and the query with an IoU above one half is the same
slot. Segments of a pass are disjoint, so there is at most one, as in panoptic quality. What has no counterpart keeps
its reference. Then class and mask probabilities are averaged over passes. The result is logits again (of
probabilities: their logarithm), so that post-processing stays one.

Letters: N queries, K classes without void, h×w mask logits, H×W padded input, H0×W0 image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kmax.data.transforms import pad
from kmax.postprocess import Sizes, Thresholds, instances, panoptic, semantic, upcast
from kmax.structures import Output, Segmentations

STRIDE = 32  # of the coarsest feature
MAX_SCALE = 4.0


@dataclass(frozen=True)
class Inference(Thresholds):
    """Thresholds and test-time options.

    `scales`: factors of the input size, one pass each; `flip`: each of them mirrored, too; the passes are averaged.
    `pad=False` pads an image only to the next size that the network wants instead of to the whole input size.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    pad: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scales", tuple(self.scales))  # JSON and YAML have lists
        if not self.scales or not all(isinstance(s, (int, float)) and 0 < s <= MAX_SCALE for s in self.scales):
            raise ValueError(
                f"inference.scales={list(self.scales)} must be one or more factors between 0 and {MAX_SCALE:g}, "
                "e.g. [0.75,1,1.25]."
            )

    @property
    def plain(self) -> bool:
        """One pass of the image padded to the input size."""
        return self.pad and not self.flip and self.scales == (1.0,)

    @property
    def passes(self) -> list[tuple[float, bool]]:
        """(scale, mirrored) of every pass, the reference first."""
        scales = sorted(set(self.scales), key=lambda scale: (abs(scale - 1), scale))
        return [(scale, mirrored) for scale in scales for mirrored in ((False, True) if self.flip else (False,))]


class Logits(NamedTuple):
    """What the network says of one image: `class_logits` (N, K+1) with void last, `mask_logits` (N, h, w) with the
    padding, and the `sizes` that the image went through."""

    class_logits: Tensor
    mask_logits: Tensor
    sizes: Sizes


def normalize(images: Tensor, valid: Tensor) -> Tensor:
    """uint8 RGB (B, 3, H, W) → float in [−1, 1]; pixels outside `valid` (B, H, W) become 0."""
    return (images.float() - 127.5) / 127.5 * valid[:, None]


@torch.no_grad()
def predict(
    model: Callable[..., Output],
    image: np.ndarray,
    size: Sequence[int],
    options: Inference,
    device: torch.device | str = "cpu",
) -> Logits:
    """Run the network on one image, once or more, and average.

    Args:
        model: takes normalised images (1, 3, H, W) and `coarse`.
        image: (H0, W0, 3) uint8 RGB.
        size: (H, W) that the image is fitted into at scale 1.
    """
    reference, *others = (
        (_run(model, image, pass_sizes(size, image.shape, scale, options.pad), mirrored, device), mirrored)
        for scale, mirrored in options.passes
    )
    return average(reference[0], others) if others else reference[0]


def segment(
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
        semantic(classes, masks, sizes) if with_semantic else None,
        instances(classes, masks, is_thing, thresholds, sizes) if with_instances else None,
    )


def pass_sizes(size: Sequence[int], image_size: Sequence[int], scale: float, padding: bool) -> Sizes:
    """The sizes of an image in a pass: fitted into `size` × `scale` and padded to all of that, or to the next size
    that fits the strides: 32k+1 in a direction where `size` is of this kind, else 32k."""
    extra = [side % 2 for side in size]
    box = [STRIDE * max(1, round((side - e) * scale / STRIDE)) + e for side, e in zip(size, extra, strict=True)]
    if scale == 1:
        box = list(size)  # whatever it is
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
    images = torch.as_tensor(padded).permute(2, 0, 1)[None].to(device)
    final = model(normalize(images, torch.as_tensor(valid)[None].to(device)), coarse=False).predictions[-1]
    return Logits(final.class_logits[0], final.mask_logits[0], sizes)


@torch.no_grad()
def average(reference: Logits, others: Sequence[tuple[Logits, bool]]) -> Logits:
    """The mean of several passes over one image, (pass, mirrored), in frame and order of the reference."""
    cells = (reference.mask_logits.shape[1], reference.mask_logits.shape[2])
    classes, masks = upcast(reference.class_logits).softmax(-1), upcast(reference.mask_logits).softmax(0)
    class_sum, mask_sum = classes.clone(), masks.clone()
    for other, mirrored in others:
        aligned = _into_frame(other, reference.sizes, cells, mirrored).softmax(0)
        own = corresponding(masks, aligned, content_cells(reference.sizes, cells))
        found = own >= 0
        class_sum += torch.where(found[:, None], upcast(other.class_logits).softmax(-1)[own], classes)
        for query in range(len(masks)):  # one plane at a time: all at once would double the memory
            mask_sum[query] += aligned[own[query]] if found[query] else masks[query]
    tiny = torch.finfo(mask_sum.dtype).tiny
    count = len(others) + 1
    return Logits((class_sum / count).clamp(min=tiny).log(), (mask_sum / count).clamp(min=tiny).log(), reference.sizes)


def corresponding(reference: Tensor, other: Tensor, content: tuple[int, int]) -> Tensor:
    """For each query of `reference` (N, h, w), the query of `other` (N, h, w) whose segment has an IoU above ½ with
    its own among the first `content` rows and columns; −1 if there is none."""
    count = len(reference)
    rows, columns = content
    a, b = (masks[:, :rows, :columns].argmax(0).flatten() for masks in (reference, other))
    shared = torch.bincount(a * count + b, minlength=count * count).view(count, count)
    union = shared.sum(1)[:, None] + shared.sum(0)[None] - shared
    best, index = (2 * shared - union).max(1)
    return torch.where(best > 0, index, -1)


def content_cells(sizes: Sizes, cells: Sequence[int]) -> tuple[int, int]:
    """How many rows and columns of a feature or logit map (h, w) = `cells` are not padding."""
    rows, columns = (
        max(1, min(n, round(content / padded * n)))
        for n, content, padded in zip(cells, sizes.content, sizes.padded, strict=True)
    )
    return rows, columns


def _into_frame(other: Logits, sizes: Sizes, cells: tuple[int, int], mirrored: bool) -> Tensor:
    """Mask logits (N, h, w) of a pass, resampled at the `cells` of another pass with other `sizes`."""
    logits = upcast(other.mask_logits)
    aligned = sizes.padded[1] % 2 == 1
    for axis in (0, 1):
        position = _positions(axis, sizes, cells[axis], other.sizes, logits.shape[axis + 1], mirrored, aligned)
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
    """Where the `cells` of one pass lie in the cells of another, along an axis; beyond the content at its end.

    With aligned corners the first and the last cell sit on the first and the last pixel, otherwise a cell is as many
    pixels wide as the stride. Content corresponds to content in the same manner.
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

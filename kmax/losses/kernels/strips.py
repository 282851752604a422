"""The softmax over queries, strip by strip: no second tensor (B, N, P) is ever allocated.

Letters: B batch, N queries, P = h·w pixels, s pixels of a strip, M segments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kmax.numerics import at_least_float32

# On a CPU: four megabytes of float32, which fit the second-level caches of two cores. Smaller strips are no faster, and
# each operation on a strip is a parallel region, at whose end threads wait for each other.
_STRIP_ELEMENTS = {"cpu": 2**20}
_LARGE_STRIP_ELEMENTS = 2**26  # on other devices few large kernels are faster than many small ones

LOG2_E = 1 / math.log(2)
"""exp x = 2^(x · log₂ e). On a CPU a power of two takes a third of the time of `exp`."""


def strips(logits: Tensor) -> Iterator[slice]:
    """Slices of the pixels of `logits` (B, N, P), each small enough for the cache."""
    batch, queries, pixels = logits.shape
    elements = _STRIP_ELEMENTS.get(logits.device.type, _LARGE_STRIP_ELEMENTS)
    size = max(elements // (batch * queries), 256)
    for start in range(0, pixels, size):
        yield slice(start, min(start + size, pixels))


def exponentials(logits: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """The softmax over queries of `logits` (B, N, P), unnormalized, one strip of s pixels after the other.

    Yields the strip's slice, `exp(logits − top)` (B, N, s), the largest logit `top` (B, 1, s), and the sum of the
    exponentials over the queries (B, 1, s). Exponentials divided by their sum are the softmax.
    """
    for pixels in strips(logits):
        strip = at_least_float32(logits[:, :, pixels])
        top = strip.amax(1, keepdim=True)
        exp = (strip - top).mul_(LOG2_E).exp2_()
        yield pixels, exp, top, exp.sum(1, keepdim=True)


def mass_per_segment(mask_logits: Tensor, segment_map: Tensor, segments: int) -> Tensor:
    """The softmax over queries of `mask_logits` (B, N, P), summed over the pixels of each value 0 … `segments` of
    `segment_map` (B, P): (B, N, M+1)."""
    mass: Tensor | None = None
    ids = torch.arange(segments + 1, device=segment_map.device)
    for pixels, exp, _, total in exponentials(mask_logits):
        inside = (segment_map[:, pixels, None] == ids) / total.transpose(1, 2)  # (B, s, M+1)
        part = exp @ inside
        mass = part if mass is None else mass.add_(part)
    assert mass is not None, "a map has pixels"
    return mass

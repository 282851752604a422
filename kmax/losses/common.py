"""What several losses share: precision, averaging, and the softmax over queries strip by strip.

Letters: B batch, N queries, P = h·w pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from kmax.numerics import at_least_float32

_STRIP_ELEMENTS = {"cpu": 2**18}  # one megabyte of float32, about a core's second-level cache
_LARGE_STRIP_ELEMENTS = 2**24  # elsewhere few large kernels are faster than many small ones


def mean_over_images(values: Tensor) -> Tensor:
    """`values` (B, n) averaged per image over the non-zero entries (at least 1), then over the batch."""
    return (values.sum(1) / (values != 0).sum(1).clamp(min=1)).mean()


def strips(logits: Tensor) -> Iterator[slice]:
    """Slices of the pixels of `logits` (B, N, P), each small enough for the cache."""
    batch, queries, pixels = logits.shape
    elements = _STRIP_ELEMENTS.get(logits.device.type, _LARGE_STRIP_ELEMENTS)
    size = max(elements // (batch * queries), 256)
    for start in range(0, pixels, size):
        yield slice(start, min(start + size, pixels))


def exponentials(logits: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """The softmax over queries of `logits` (B, N, P), unnormalised, one strip of s pixels after the other.

    Yields the strip's slice, `exp(logits − top)` (B, N, s), the largest logit `top` (B, 1, s), and the sum of the
    exponentials over the queries (B, 1, s): their quotient is the softmax.
    """
    for pixels in strips(logits):
        strip = at_least_float32(logits[:, :, pixels])
        top = strip.amax(1, keepdim=True)
        exp = (strip - top).exp_()
        yield pixels, exp, top, exp.sum(1, keepdim=True)

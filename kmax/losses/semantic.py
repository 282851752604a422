"""Cross-entropy of the auxiliary semantic head, on drawn pixels or on all of them.

Letters: B batch, K classes without void, h×w target size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kmax.losses.averages import mean_over_images
from kmax.losses.matching import stack_crowd, stack_targets
from kmax.losses.sampling import draw_pixels, gather_pixels, log_rarity
from kmax.numerics import at_least_float32
from kmax.structures import VOID, Target

_STRIDES = tuple(1 << i for i in range(12))


def target_stride(target_size: tuple[int, int], size: tuple[int, int]) -> int:
    """The power of two s for which `target[::s, ::s]` is of `size`.

    Raises:
        ValueError: there is none.
    """
    for stride in _STRIDES:
        if tuple(-(-length // stride) for length in target_size) == size:
            return stride
    raise ValueError(
        f"Semantic logits of {size} do not lie on a stride of the {target_size} target: take them from a stride that "
        "is a power of two times that of the target."
    )


def semantic_loss(
    logits: Tensor, targets: Sequence[Target], size: tuple[int, int], temperature: float | None, samples: int
) -> Tensor:
    """Loss `semantic`, unweighted. Void pixels are left out; segments without a query count, and so does crowd that a
    target names. If a target has weights, a pixel's loss is multiplied by its weight.

    Args:
        logits: (B, K+1 or K, h', w') with h' and w' those of the target or smaller by a power of two.
        targets: B targets of `size` (h, w).
        temperature: of the draw; None takes all pixels.
        samples: number of pixels to draw.

    Raises:
        ValueError: the logits fit no stride of the targets.
    """
    segment_map, labels = stack_targets(targets, logits.shape[0], size)
    stride = target_stride(size, (logits.shape[2], logits.shape[3]))

    def strided(values: Tensor) -> Tensor:
        kept: Tensor = values.unflatten(1, size)[:, ::stride, ::stride]  # (B, h·w) → (B, h', w')
        return kept.flatten(1)

    crowd = stack_crowd(targets, segment_map)
    label = strided(torch.where(segment_map == VOID, crowd, labels.gather(1, segment_map.clamp(min=0))))
    weight = strided(_weights(targets, segment_map))
    logits = logits.flatten(2)  # (B, K, h', w') → (B, K, h'·w')
    if temperature is not None:
        index = draw_pixels(strided(log_rarity(segment_map, labels.shape[1])), temperature, samples)
        # (B, S), (B, S), (B, K, S)
        label, weight, logits = label.gather(1, index), weight.gather(1, index), gather_pixels(logits, index)
    entropy = cross_entropy(logits, label)
    return mean_over_images(entropy * weight.to(entropy.dtype))


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """The cross-entropy (B, P) of each pixel for `logits` (B, K, P) and `label` (B, P), 0 on void. (PyTorch's own for
    images is not deterministic on a GPU.)"""
    log_probability = at_least_float32(logits).log_softmax(1)
    entropy = -log_probability.gather(1, label.clamp(min=0)[:, None])[:, 0]
    return entropy.masked_fill(label == VOID, 0)


def _weights(targets: Sequence[Target], segment_map: Tensor) -> Tensor:
    """The weight of each pixel, (B, h·w) float32."""
    ones = torch.ones_like(segment_map[0], dtype=torch.float32)
    if all(target.weight is None for target in targets):
        return ones.expand(len(targets), -1)
    return torch.stack([ones if target.weight is None else target.weight.flatten() for target in targets])

"""What every backbone offers: features by stride.

Letters: B batch, H×W input size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

STRIDES = (4, 8, 16, 32)
STEM = 0
"""Key of the stem's feature."""


class Backbone(nn.Module):
    """Features by stride: forward maps images (B, 3, H, W) to {4, 8, 16, 32 and, where there is one, 0: stem}.

    `channels` has the same keys. The feature at stride s has ⌈H/s⌉ × ⌈W/s⌉ cells, on pixels 0, s, 2s, …
    `act` is the activation that a feature still lacks (deeplab2 family), else the identity.
    """

    channels: dict[int, int]
    checkpointing: bool = False
    act: nn.Module

    def run(self, stage: nn.Module, x: Tensor) -> Tensor:
        """A stage; its activations are computed again in the backward pass if `checkpointing`."""
        return recomputed(stage, x) if self.checkpointing and self.training else stage(x)


def recomputed(stage: nn.Module, *inputs: Tensor) -> Any:
    """What a stage makes of its inputs, without keeping activations: the backward pass computes them again."""
    if torch.compiler.is_compiling():
        return checkpoint(stage, *inputs, use_reentrant=False)
    contexts = (nullcontext(), _statistics_kept(stage))
    return checkpoint(stage, *inputs, use_reentrant=False, context_fn=lambda: contexts)


@contextmanager
def _statistics_kept(stage: nn.Module) -> Iterator[None]:
    """Batch norms count a batch once, although its activations are computed twice."""
    norms = [module for module in stage.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

"""Activation checkpointing: activations are computed again in the backward pass, which saves memory and costs time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute(stage: nn.Module, *inputs: Tensor | None) -> Any:
    """Compute `stage(*inputs)` and keep only the inputs until the backward pass.

    Batch norms count a batch once, although its activations are computed twice.
    """
    if torch.compiler.is_compiling():
        return checkpoint(stage, *inputs, use_reentrant=False)  # the compiler updates statistics in the first pass only
    return checkpoint(stage, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(stage)))


@contextmanager
def _statistics_kept(stage: nn.Module) -> Iterator[None]:
    norms = [m for m in stage.modules() if isinstance(m, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count

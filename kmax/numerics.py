"""The precision of computations: at least float32 where half precision would lose too much."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 stay unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Disable autocast on the device of `x`; the device `meta` has none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)

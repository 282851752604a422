"""In which precision is computed: at least float32 where half precision would lose too much."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision raised to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """No automatic half precision on the device of `x`; `meta` has none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)

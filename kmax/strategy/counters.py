"""Counts of what a piece of code costs on its device: kernel launches, and waits of the host.

Counted where PyTorch dispatches operators, so no GPU is needed: on CPU tensors, or on fake tensors that only pretend
to be on a GPU. An operator that only makes a view launches nothing; every other counts as one launch (some are really
two or three, and a compiler may join several).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kmax.options import Plain

Arguments = tuple[Any, ...]  # of an operator, by position

_WAITING = (
    "_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive", "is_nonzero",
    "equal", "bincount", "repeat_interleave",
)  # fmt: skip
_FREE = (
    "empty", "empty_like", "empty_strided", "new_empty", "detach", "lift_fresh", "set_", "alias", "_unsafe_view",
    "device", "promote_types", "new_empty_strided", "empty_permuted", "resize_", "_reshape_alias",
)  # fmt: skip


class DeviceCounter(TorchDispatchMode):
    """Counts while it is entered: `launches`, `waits`, and both by operator.

    A wait is an operator whose result the host reads, or a copy between host and device that is not asked to be
    asynchronous. `host` is the type of the device that counts as the host; on CPU tensors, where everything is host,
    give `"none"`: then only operators that read values are waits.
    """

    def __init__(self, host: str = "cpu") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.host = host
        self.by_operator: Counter[str] = Counter()
        self.waits_by_operator: Counter[str] = Counter()

    @property
    def launches(self) -> int:
        """Number of operators that launched a kernel."""
        return self.by_operator.total()

    @property
    def waits(self) -> int:
        """How often the host waited for the device."""
        return self.waits_by_operator.total()

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Arguments = (), kwargs: Plain | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        name = func.overloadpacket.__name__
        devices = {tensor.device.type for tensor in (*given, *made)}
        if devices <= {self.host} and devices:
            return result
        if name in _WAITING or _by_mask(name, args) or self._blocking_copy(name, args, kwargs or {}, made):
            self.waits_by_operator[name] += 1
        if not func.is_view and name not in _FREE:
            self.by_operator[name] += 1
        return result

    def _blocking_copy(self, name: str, args: Arguments, kwargs: Plain, made: list[Tensor]) -> bool:
        if name not in ("copy_", "_to_copy") or not made:
            return False
        source = args[1] if name == "copy_" else args[0]
        between = {source.device.type, made[0].device.type}
        asynchronous = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        return self.host in between and len(between) > 1 and not asynchronous


def _by_mask(name: str, args: Arguments) -> bool:
    """Whether something is indexed with booleans, whose number the host must know."""
    if name not in ("index", "index_put", "index_put_"):
        return False
    return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in tree_leaves(args[1]))

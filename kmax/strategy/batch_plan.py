"""How the batch of an experiment is spread over devices, and the factor for rate and steps if the batch changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kmax.strategy.options import StrategyOptions


class BatchError(ValueError):
    """A batch that cannot be spread over the devices by the rule."""


@dataclass(frozen=True)
class BatchPlan:
    """effective batch = devices × per device × accumulated; `factor` = effective batch / the experiment's batch."""

    total_devices: int
    batch_size_per_device: int
    accumulate: int
    effective_batch: int
    factor: float

    def __str__(self) -> str:
        return (
            f"effective batch {self.effective_batch} = {self.total_devices} device{'s' * (self.total_devices > 1)} × "
            f"{self.batch_size_per_device} per device × {self.accumulate} accumulated"
        )


def num_devices(devices: object, accelerator: str) -> int:
    """How many devices of a node `devices` names: a number, a list, −1 or "auto"."""
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return len(devices)
    if str(devices) in ("-1", "auto"):
        import torch  # here, so that a job can listen for signals before it imports what takes seconds

        return max(1, torch.cuda.device_count()) if accelerator in ("gpu", "cuda", "auto") else 1
    return int(str(devices))


def batch_plan(strategy: StrategyOptions, batch_size: int) -> BatchPlan:
    """The plan for an experiment with a batch of `batch_size` images.

    The rule "keep" reaches that batch by accumulation; "scale" accumulates nothing, so the batch is what the devices
    hold.

    Raises:
        BatchError: the batch does not divide.
    """
    world = num_devices(strategy.devices, strategy.accelerator) * strategy.num_nodes
    per_device = strategy.batch_size_per_device or max(1, batch_size // world)
    if strategy.batch_rule == "scale":
        return BatchPlan(world, per_device, 1, world * per_device, world * per_device / batch_size)
    accumulate, rest = divmod(batch_size, world * per_device)
    if rest or not accumulate:
        raise BatchError(f"An effective batch of {batch_size} cannot be made of {world} device(s) × {per_device}")
    return BatchPlan(world, per_device, accumulate, batch_size, 1.0)

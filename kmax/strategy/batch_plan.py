"""How a recipe's batch is spread over devices, and what becomes of rate and steps when the batch itself changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

RULES = ("keep", "scale")


@dataclass(frozen=True)
class BatchPlan:
    """effective batch = devices × per device × accumulated; `factor` = effective batch / the recipe's batch."""

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


def num_devices(devices: Any, accelerator: str) -> int:
    """How many devices of a node `devices` names: a number, a list, −1 or "auto"."""
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return len(devices)
    if str(devices) in ("-1", "auto"):
        import torch  # here, so that a job can listen for signals before it imports what takes seconds

        return max(1, torch.cuda.device_count()) if accelerator in ("gpu", "cuda", "auto") else 1
    return int(devices)


def batch_plan(config: Mapping[str, Any]) -> BatchPlan:
    """The plan for a configuration with its sections `strategy` and `dataset`.

    `strategy.batch_rule=keep` makes the recipe's batch by accumulation; `scale` accumulates nothing and lets the
    batch be what the devices hold.

    Raises:
        ValueError: an unknown rule, or a batch that does not divide.
    """
    strategy, recipe = config["strategy"], int(config["dataset"]["batch_size"])
    rule = strategy["batch_rule"]
    if rule not in RULES:
        raise ValueError(f"strategy.batch_rule={rule} is unknown: choose one of {', '.join(RULES)}.")
    world = num_devices(strategy["devices"], strategy["accelerator"]) * strategy["num_nodes"]
    per_device = strategy["batch_size_per_device"] or max(1, recipe // world)
    if rule == "scale":
        return BatchPlan(world, per_device, 1, world * per_device, world * per_device / recipe)
    accumulate, rest = divmod(recipe, world * per_device)
    if rest or not accumulate:
        raise ValueError(
            f"An effective batch of {recipe} cannot be made of {world} device(s) × {per_device}: "
            "set strategy.batch_size_per_device to a divisor, strategy.batch_rule=scale to follow the devices, or "
            "change dataset.batch_size."
        )
    return BatchPlan(world, per_device, accumulate, recipe, 1.0)


def apply_batch_rule(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the batch that the plan makes, and the rate, steps and warm-up that belong to it.

    The rate grows linearly with the batch and everything counted in steps shrinks by the same factor, so that a run
    sees as many images as its recipe says. Applying it twice changes nothing.

    Raises:
        ValueError: as `batch_plan`.
    """
    plan = batch_plan(config)
    if plan.factor == 1.0:
        return config
    config = deepcopy(config)
    config["dataset"]["batch_size"] = plan.effective_batch
    config["optimizer"]["lr"] *= plan.factor
    for section, key in (("optimizer", "steps"), ("optimizer", "warmup_steps"), ("trainer", "val_every_steps")):
        config[section][key] = max(1, round(config[section][key] / plan.factor))
    return config

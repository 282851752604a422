"""Apply the options of a resumed run to an optimizer restored from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kmax.options import Plain


def follow_options(optimizer: Optimizer, schedule: LambdaLR, groups: Sequence[Plain], fused: bool | None) -> None:
    """Set rates and weight decay of a restored optimizer to those of `groups`, at the schedule's step.

    A checkpoint brings the rates that it was written with, and one written at the end of its schedule the rate 0. With
    unchanged options nothing changes, to the last bit; moments and the count of steps are kept in any case.

    Args:
        groups: as `parameter_groups` makes them from today's options, in the order of the optimizer's.
        fused: of the optimizer.
    """
    for number, (own, fresh) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        schedule.base_lrs[number] = own["initial_lr"] = fresh["lr"]
        own["lr"] = fresh["lr"] * schedule.lr_lambdas[number](schedule.last_epoch)
        own["weight_decay"], own["fused"] = fresh["weight_decay"], fused
    schedule._last_lr = [group["lr"] for group in optimizer.param_groups]

"""An optimizer that comes back from a checkpoint follows the options of the run that continues."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kmax.optim import follow_options, parameter_groups, warmup_poly

Pair = tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]


def made(lr: float, decay: float, steps: int) -> tuple[nn.Module, Pair]:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    optimizer = torch.optim.AdamW(parameter_groups(model, lr, decay), lr=lr)
    return model, (optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_poly(s, steps, 1)))


def trained(lr: float, decay: float, steps: int, count: int) -> tuple[dict, dict]:
    model, (optimizer, schedule) = made(lr, decay, steps)
    for _ in range(count):
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        schedule.step()
    return optimizer.state_dict(), schedule.state_dict()


def restored(lr: float, decay: float, steps: int, states: tuple[dict, dict]) -> Pair:
    model, (optimizer, schedule) = made(lr, decay, steps)
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    follow_options(optimizer, schedule, parameter_groups(model, lr, decay), None)
    return optimizer, schedule


def test_nothing_changes_with_the_same_options() -> None:
    states = trained(1e-3, 0.05, 10, 4)
    optimizer, schedule = restored(1e-3, 0.05, 10, states)
    assert optimizer.state_dict()["param_groups"] == states[0]["param_groups"]
    assert schedule.get_last_lr() == states[1]["_last_lr"]


def test_a_run_that_is_extended_with_other_options() -> None:
    """The old schedule had ended, with the rate 0."""
    optimizer, schedule = restored(1e-6, 0.9, 8, trained(1e-3, 0.05, 4, 4))
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([1e-6 * (1 - 4 / 8) ** 0.9] * 2)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.9, 0.0]
    assert len(optimizer.state) == 4  # the moments are kept
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-6 * (1 - 5 / 8) ** 0.9)

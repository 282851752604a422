"""The schedule against recorded factors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmax.optim import warmup_poly

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "lr_schedule.json").read_text())


@pytest.mark.parametrize("name", RECORDED)
def test_schedule_equals_recorded(name: str) -> None:
    recorded = RECORDED[name]
    for step, factor in recorded["factor"].items():
        ours = warmup_poly(
            int(step), recorded["max_iter"], recorded["warmup_iters"], recorded["warmup_factor"], recorded["power"]
        )
        assert ours == pytest.approx(factor, rel=1e-12)


def test_schedule_ends_at_zero_and_stays_there() -> None:
    assert warmup_poly(100, 100, warmup=10) == 0
    assert warmup_poly(101, 100, warmup=10) == 0


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"optimizer\.steps"):
        warmup_poly(0, 0)

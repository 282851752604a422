"""Speed and time left: validations apart, right after a resume."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kmax.callbacks import estimate
from kmax.callbacks.estimate import time_of
from kmax.callbacks.pace import Pace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_after_a_resume() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    assert pace.seconds_left(100, 0) is None
    for step in range(901, 911):  # a run that continues at step 900
        clock.now += 2.0
        pace.mark(step)
    assert pace.steps_per_second == 0.5
    assert pace.seconds_left(1000 - 910, 0) == 180.0


def test_validations_are_timed_apart() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    for step in range(1, 21):
        clock.now += 1.0
        pace.mark(step)
        if step == 10:
            pace.pause()
            clock.now += 300.0
            pace.go_on()
    assert pace.steps_per_second == 1.0
    assert pace.seconds_left(20, 2) == 20.0 + 600.0


def test_only_the_last_steps_count() -> None:
    clock = Clock()
    pace = Pace(window=5, clock=clock)
    for step in range(1, 21):
        clock.now += 10.0 if step < 10 else 1.0
        pace.mark(step)
    assert pace.steps_per_second == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.0, "less than a minute"), (1260.0, "21 min"), (5399.0, "90 min"), (11520.0, "3.2 h")]
)
def test_an_estimate_is_rounded(seconds: float, text: str) -> None:
    assert time_of(seconds) == text


def test_the_time_of_a_run_is_said_once_after_its_first_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seconds a step, from step 100 of 400 on, with a validation of an hour in between."""
    now = [0.0]
    monkeypatch.setattr(estimate, "Pace", lambda: Pace(clock=lambda: now[0]))
    trainer: Any = SimpleNamespace(global_step=100, max_steps=400, is_global_zero=True)
    callback = estimate.Estimate(steps=20)
    callback.on_train_start(trainer, trainer)
    for step in range(101, 160):
        now[0] += 2
        trainer.global_step = step
        callback.on_train_batch_end(trainer)
        if step == 110:
            callback.on_validation_start(trainer, trainer)
            now[0] += 3600
            callback.on_validation_end(trainer, trainer)
    assert capsys.readouterr().out == "2 s a step: about 9 min and the validations\n"

"""Speed and time left: validations apart, right after a resume."""

from __future__ import annotations

from kmax.callbacks.pace import Pace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_after_a_resume() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    assert pace.seconds_left(100, 0) is None
    for step in range(901, 911):  # a run that goes on at step 900
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

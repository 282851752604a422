"""The speed of a run, and the time that it still takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class Pace:
    """The speed of training over the last `window` marks; validations are timed separately.

    Only steps of this process count, so that the remaining time is also right after a resume. The first step, in which
    workers start and kernels are chosen, does not count.

    Args:
        window: how many marks are remembered.
        clock: seconds from some moment on.
    """

    def __init__(self, window: int = 50, clock: Callable[[], float] = time.monotonic) -> None:
        self._marks: deque[tuple[float, int]] = deque(maxlen=window)  # (seconds of training, steps)
        self._clock = clock
        self._apart = 0.0  # seconds that were no training
        self._paused_at: float | None = None
        self._validation: float | None = None  # seconds that the last one took

    def mark(self, step: int) -> None:
        """Note that `step` steps are done."""
        self._marks.append((self._clock() - self._apart, step))

    def pause(self) -> None:
        """A validation begins."""
        self._paused_at = self._clock()

    def go_on(self) -> None:
        """A validation is over."""
        if self._paused_at is not None:
            self._validation = self._clock() - self._paused_at
            self._apart += self._validation
            self._paused_at = None

    @property
    def steps_per_second(self) -> float | None:
        """None before there are two marks."""
        if len(self._marks) < 2:
            return None
        (before, first), (now, last) = self._marks[0], self._marks[-1]
        return (last - first) / (now - before) if now > before and last > first else None

    def seconds_left(self, steps: int, validations: int) -> float | None:
        """Seconds that `steps` steps and `validations` validations will take; None while the speed is unknown."""
        rate = self.steps_per_second
        return None if rate is None else steps / rate + validations * (self._validation or 0.0)

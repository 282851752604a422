"""How fast a run is, and how long it will take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class Pace:
    """The speed of training over the last `window` marks, validations timed apart.

    Only steps of this process count, so that the time left is right after a resume, too; the first one, in which
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
        """So many steps are done."""
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
        """How long so many steps and validations will take; None while nothing is known."""
        rate = self.steps_per_second
        return None if rate is None else steps / rate + validations * (self._validation or 0.0)

"""A callback that makes a run of a few steps long enough to be interrupted."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback


class Pace(Callback):
    """Sleep `seconds` after every step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *_: Any) -> None:
        time.sleep(self.seconds)

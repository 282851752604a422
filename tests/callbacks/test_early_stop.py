"""A run ends when it no longer improves, but not before it could learn anything."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kmax.callbacks import EarlyStop


def stops_at(values: list[float], patience: int = 3) -> int | None:
    """The validation after which a run of `len(values)` validations stops."""
    stop = EarlyStop("val/pq", patience)
    trainer: Any = SimpleNamespace(
        max_steps=len(values),
        should_stop=False,
        current_epoch=0,
        fast_dev_run=False,
        sanity_checking=False,
        state=SimpleNamespace(fn="fit"),
        strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
    )
    stop._check_on_train_epoch_end = False
    for trainer.global_step, value in enumerate(values, 1):
        trainer.callback_metrics = {"val/pq": torch.tensor(value)}
        stop.on_validation_end(trainer, trainer)
        if trainer.should_stop:
            return int(trainer.global_step)
    return None


@pytest.mark.parametrize(
    ("values", "last"),
    [
        ([0.0] * 20, None),  # nothing is learned yet
        ([0.3] * 3 + [0.2] * 9, 7),  # the first third is not counted: the best of the rest is the fourth
        ([0.0] * 8 + [0.1, 0.05, 0.05, 0.05], 12),  # one value above zero, then three below it
        ([0.1 + 0.01 * step for step in range(12)], None),  # it improves
    ],
)
def test_validations_count_once_something_is_learned(values: list[float], last: int | None) -> None:
    assert stops_at(values) == last

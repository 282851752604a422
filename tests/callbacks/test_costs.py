"""What a run costs is logged with each validation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from kmax.callbacks import Costs, costs


def test_parameters_and_the_median_time_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches make a step; one of the steps is slow."""
    now = [0.0]
    monkeypatch.setattr(costs, "monotonic", lambda: now[0])
    logged: list[tuple[dict[str, float], int]] = []
    logger = SimpleNamespace(log_metrics=lambda values, step: logged.append((values, step)))
    trainer: Any = SimpleNamespace(accumulate_grad_batches=2, sanity_checking=False, loggers=[logger], global_step=0)
    module: Any = nn.Linear(3, 4)
    callback = Costs()
    callback.on_train_start(trainer, module)
    callback.on_validation_end(trainer, module)
    for batch in range(12):
        now[0] += 10.0 if batch == 6 else 0.25
        trainer.global_step = (batch + 1) // 2
        callback.on_train_batch_end(trainer, module, None, None, batch)
    callback.on_validation_end(trainer, module)
    callback.on_validation_end(trainer, module)
    assert logged == [({"cost/parameters": 16.0, "cost/step_seconds": 0.5}, 5)]

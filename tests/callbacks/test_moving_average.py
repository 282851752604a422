"""The moving average against PyTorch's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from kmax.callbacks import MovingAverage


def test_the_average_is_that_of_torch() -> None:
    torch.manual_seed(0)
    module: Any = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    reference = AveragedModel(module, avg_fn=get_ema_avg_fn(0.9), use_buffers=True)
    trainer: Any = SimpleNamespace(global_step=0, state=SimpleNamespace(fn="fit"))
    average = MovingAverage(0.9)
    average.setup(trainer, module, "fit")
    average.on_fit_start(trainer, module)
    average.on_train_start(trainer, module)
    for step in (1, 2, 2, 3):  # the third batch is only accumulated
        module(torch.randn(2, 3, 5, 5)).sum().backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        new = trainer.global_step != step
        trainer.global_step = step
        average.on_train_batch_end(trainer, module, None, None, 0)
        if new:
            reference.update_parameters(module)
    current = {name: value.clone() for name, value in module.state_dict().items()}
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    average.on_save_checkpoint(trainer, module, checkpoint)
    expected = {name: value for name, value in reference.module.state_dict().items() if value.is_floating_point()}
    for name, value in expected.items():
        torch.testing.assert_close(checkpoint["state_dict"][name], value)
    average.on_validation_epoch_start(trainer, module)
    torch.testing.assert_close(module.state_dict()["0.weight"], expected["0.weight"])
    average.on_validation_epoch_end(trainer, module)
    for name, value in module.state_dict().items():
        assert torch.equal(value, current[name]), name


def test_a_decay_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        MovingAverage(1.0)

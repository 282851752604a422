"""Activations that are computed again: the same numbers, and every batch counted once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kmax.config.build import build_model
from kmax.model.recompute import recompute
from small_run import SMALL_MODEL


def step(network: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Gradients and statistics after one step."""
    torch.manual_seed(1)  # of dropped paths
    network(x).square().sum().backward()
    gradients = {f"{name} grad": p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {**gradients, **dict(module.named_buffers())}


@pytest.mark.long
def test_a_whole_model_computes_the_same() -> None:
    results = []
    for again in (False, True):
        torch.manual_seed(0)
        options = (f"model.checkpointing={again}", f"backbone.checkpointing={again}")
        model = build_model(None, *SMALL_MODEL, *options).train()

        def total(x: Tensor, model: nn.Module = model) -> Tensor:
            output = model(x)
            return torch.stack([part.sum() for prediction in output.predictions for part in prediction])

        results.append(step(total, model, torch.rand(2, 3, 65, 65, generator=torch.Generator().manual_seed(0))))
    plain, recomputed = results
    assert plain.keys() == recomputed.keys()
    assert [name for name in plain if not torch.equal(plain[name], recomputed[name])] == []


@pytest.mark.long
@pytest.mark.parametrize(("compiled", "momentum"), [(False, 0.1), (False, None), (True, 0.1)])
def test_statistics_count_a_batch_once(compiled: bool, momentum: float | None) -> None:
    results = []
    for again in (False, True):
        torch.manual_seed(0)
        stage = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=momentum), nn.GELU()).double()
        network = (lambda x, stage=stage: recompute(stage, x)) if again else stage
        if compiled and again:
            network = torch.compile(network, backend="aot_eager", fullgraph=True)
        results.append(step(network, stage, torch.randn(2, 3, 5, 5, dtype=torch.float64)))
    plain, recomputed = results
    assert plain["1.num_batches_tracked"] == 1
    for name, value in plain.items():
        torch.testing.assert_close(recomputed[name], value, msg=name)

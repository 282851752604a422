"""Batch norm over ranks against one process that holds the whole batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import sync_norm_worker as worker
from conftest import long_but, run_python
from kmax.strategy.sync_norm import SyncBatchNorm, synchronize


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """How many ranks there were, and the folder that they wrote to."""
    folder = tmp_path_factory.mktemp("ranks")
    here = str(Path(worker.__file__))
    result = run_python(here, str(folder), str(request.param), GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr[-3000:]
    return request.param, folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the ranks are forked")
@pytest.mark.parametrize("case", worker.CASES)
def test_ranks_together_equal_one_process(ranks: tuple[int, Path], case: str) -> None:
    count, folder = ranks
    results = [torch.load(folder / f"{case}-{rank}.pt", weights_only=True) for rank in range(count)]
    whole = worker.run(case, slice(None), replace=False)
    tolerance = 1e-12 if worker.CASES[case][1] == torch.float64 else 1e-6

    def near(ours: Tensor, theirs: Tensor) -> None:
        scale = max(float(theirs.abs().max()), 1.0)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * scale)

    near(torch.cat([r["y"] for r in results]), whole["y"])
    near(torch.cat([r["x"] for r in results]), whole["x"])
    for name, gradient in whole["gradients"].items():
        near(sum(r["gradients"][name] for r in results), gradient)
    for result in results:
        assert result["buffers"].keys() == whole["buffers"].keys()
        for name, buffer in whole["buffers"].items():
            near(result["buffers"][name], buffer)


@pytest.mark.parametrize(
    "name",
    long_but(
        ["efficientnet_b0", "resnetv2_50", "densenet121", "regnety_002", "test_resnet"], "regnety_002", "test_resnet"
    ),
)
def test_replaced_norms_compute_the_same_and_keep_their_names(name: str) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=3)
    names = list(plain.state_dict())
    x = torch.rand(2, 3, 64, 64)
    expected = [plain.train(mode)(x).detach() for mode in (False, True)]
    statistics = {key: value.clone() for key, value in plain.state_dict().items()}
    torch.manual_seed(0)
    ours = synchronize(timm.create_model(name, num_classes=3))
    norms = [module for module in ours.modules() if isinstance(module, _BatchNorm)]
    assert all(isinstance(norm, SyncBatchNorm) for norm in norms)
    assert norms
    for mode, result in zip((False, True), expected, strict=True):
        torch.testing.assert_close(ours.train(mode)(x), result, rtol=0, atol=0)
    assert list(ours.state_dict()) == names
    for key, value in ours.state_dict().items():
        torch.testing.assert_close(value, statistics[key], rtol=0, atol=0)
    assert synchronize(ours) is ours


def test_a_norm_used_twice_stays_one() -> None:
    norm = nn.BatchNorm1d(3)
    network = synchronize(nn.ModuleList([nn.Sequential(norm), nn.Sequential(norm)]))
    first, second = (module for module in network.modules() if isinstance(module, nn.Sequential))
    assert first[0] is second[0]
    assert isinstance(synchronize(norm), SyncBatchNorm)


def test_a_norm_of_an_unknown_kind_is_refused() -> None:
    class Odd(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input).abs()

    with pytest.raises(ValueError, match="cannot synchronize a Odd"):
        synchronize(nn.Sequential(Odd(3)))

"""Estimates of memory and FLOPs: exact where the truth is known, and in proportion to the pixels."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from conftest import ROOT

spec = importlib.util.spec_from_file_location("memory_table", ROOT / "scripts/memory_table.py")
assert spec is not None
assert spec.loader is not None
memory_table = sys.modules["memory_table"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory_table)


def test_what_autograd_keeps_is_counted_once() -> None:
    weight = torch.ones(8, 8, requires_grad=True)
    x = torch.ones(4, 8, requires_grad=True)
    with memory_table.Kept([weight]) as kept:
        y = (x @ weight).exp()  # keeps x, weight, and its own result
        (y * y).sum()  # keeps y twice, which is no second copy
    assert kept.bytes == 4 * (x.numel() + y.numel())


def test_memory_and_flops_follow_the_pixels() -> None:
    options = memory_table.experiment_options("shapes")
    small, large = (memory_table.measure(options, (size, size)) for size in (129, 257))
    assert small.parameters == large.parameters
    pixels = (257 / 129) ** 2
    assert large.flops / small.flops == pytest.approx(pixels, rel=0.15)
    assert 0.8 * pixels < large.kept / small.kept < 1.4 * pixels  # axial attention grows faster than the pixels
    assert large.images(large.memory(3) + 1) == 3
    assert large.images(large.memory(3) - 1) == 2
    assert large.images(0) == 0
    again = memory_table.measure(memory_table.recomputed(options), (257, 257))
    assert again.parameters == large.parameters
    assert again.kept < 0.7 * large.kept


def test_an_unknown_experiment_is_named() -> None:
    with pytest.raises(SystemExit, match="no_such"):
        memory_table.main(["no_such"])


def test_a_run_says_what_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "experiment=shapes",
        "backbone.name=resnet10t",
        "dataset.size=[129,129]",
    ]
    memory_table.main(small)
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    whole, recomputed, frozen = (float(row[2].removesuffix("GiB ")) for row in rows)
    assert recomputed < whole
    assert frozen < whole
    with pytest.raises(SystemExit, match=r"There is no .*panoptic_train\.json: give the folder"):
        memory_table.main(["experiment=finetune", f"dataset.root={tmp_path}"])

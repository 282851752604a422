"""Estimates of memory and FLOPs: exact where the truth is known, and in proportion to the pixels."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from conftest import ROOT
from kmax.config import memory

spec = importlib.util.spec_from_file_location("memory_table", ROOT / "scripts/memory_table.py")
assert spec is not None
assert spec.loader is not None
memory_table = sys.modules["memory_table"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory_table)


def test_what_autograd_keeps_is_counted_once() -> None:
    weight = torch.ones(8, 8, requires_grad=True)
    x = torch.ones(4, 8, requires_grad=True)
    with memory.Kept([weight]) as kept:
        y = (x @ weight).exp()  # keeps x, weight, and its own result
        (y * y).sum()  # keeps y twice, which is no second copy
    assert kept.bytes == 4 * (x.numel() + y.numel())


@pytest.mark.long
def test_memory_and_flops_follow_the_pixels() -> None:
    options = memory_table.experiment_options("shapes")
    small, large = (memory.measure(options, (size, size)) for size in (129, 257))
    assert small.parameters == large.parameters
    pixels = (257 / 129) ** 2
    assert large.flops / small.flops == pytest.approx(pixels, rel=0.15)
    assert 0.8 * pixels < large.kept / small.kept < 1.4 * pixels  # axial attention grows faster than the pixels
    assert large.images(large.memory(3) + 1) == 3
    assert large.images(large.memory(3) - 1) == 2
    assert large.images(0) == 0
    again = memory.measure(memory.recomputed(options), (257, 257))
    assert again.parameters == large.parameters
    assert again.kept < 0.7 * large.kept


@pytest.mark.long
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_out_of_memory_ends_in_what_helps_most(kind: str) -> None:
    options = memory_table.experiment_options("shapes", "backbone.name=resnet10t", "dataset.size=[129,129]")

    def step() -> None:
        if kind == "cpu":
            torch.empty(2**52)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    refused = pytest.raises(ValueError, match="Out of memory with 8 images of 129×129 per device")
    with refused as refusal, memory.explained_memory(options):
        step()
    text = str(refusal.value)
    needs = [float(number) for number in re.findall(r"([\d.]+) GiB", text)]
    assert all(option in text for option in ("batch_size_per_device=4", "backbone.checkpointing=true", "freeze=all"))
    assert len(needs) == 4
    assert all(need <= needs[0] for need in needs[1:])


@pytest.mark.long
def test_other_errors_pass_and_what_helps_no_more_is_not_offered() -> None:
    options = memory_table.experiment_options("shapes", "backbone.name=resnet10t", "dataset.size=[129,129]")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), memory.explained_memory(options):
        torch.ones(2, 3) @ torch.ones(2, 3)
    text = memory.out_of_memory(memory.recomputed(options), 1)
    assert "checkpointing" not in text
    assert "batch_size_per_device" not in text
    assert "dataset.size=[65,65]" in text


def test_what_is_alive_at_the_same_time_counts() -> None:
    with memory.Live() as live:
        a = torch.ones(1000)
        b = a + 1
        del a
        c = b.view(10, 100) * 2
        del b
        d = c.exp()
    assert live.most == 2 * 4000
    assert len(d) == 10


def test_an_unknown_experiment_is_named() -> None:
    with pytest.raises(SystemExit, match="no_such"):
        memory_table.main(["no_such"])


@pytest.mark.long
def test_a_run_says_what_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "experiment=shapes",
        "backbone.name=resnet10t",
        "dataset.size=[129,129]",
    ]
    memory_table.main(small)
    printed = capsys.readouterr().out
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| ")][2:]
    assert "Validation during training needs 0." in printed
    whole, recomputed, frozen = (float(row[2].removesuffix("GiB ")) for row in rows)
    assert recomputed < whole
    assert frozen < whole
    with pytest.raises(SystemExit, match=r"There is no .*panoptic_train\.json: give the folder"):
        memory_table.main(["experiment=finetune", f"dataset.root={tmp_path}"])

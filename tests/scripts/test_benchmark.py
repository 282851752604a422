"""The benchmark's quick form: every table of the device, and the same figures as JSON."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from conftest import ROOT
from kmax.losses import mask


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield import_module("benchmark")
    for name in ("benchmark", "benchmark_device", "benchmark_parts"):
        sys.modules.pop(name, None)


@pytest.mark.long
def test_every_table_is_filled(
    benchmark: Any, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    quick = ("--quick", "--threads=1", f"--json={file}", f"--ckpt={tiny_checkpoint}", "--device=cpu")
    benchmark.main(["training", "inference", "precision", *quick])
    figures = json.loads(file.read_text())
    plain, other = figures["training"]
    for row in (plain, other):
        assert row["images_per_s"] > 0
        assert all(row["ms"][phase] > 0 for phase in ("data", "forward", "criterion", "backward", "optimizer"))
    assert 1000 < plain["launches"] < other["launches"], "computed again, and exchanged"
    assert [row["precision"] for row in figures["inference"]] == ["fp32", "bf16"]
    assert [row["precision"] for row in figures["precision"]] == ["fp32", "fp16", "bf16"]
    assert all(0 <= row["pq"] <= 100 for row in figures["precision"])
    printed = capsys.readouterr().out
    assert "| tiny 65×65 bf16, sync_norm, recompute | 2 |" in printed
    assert "PQ in fp32" in printed


def test_the_time_is_kept(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(["training", "--quick", "--limit=-1", "--device=cpu"])
    assert capsys.readouterr().out.count("not measured: no time left") == 2


def test_unknown_names_are_refused(benchmark: Any) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["speed"])


def test_definitions_are_measured_against_the_criterion(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = import_module("benchmark_parts")
    defined = Mock(wraps=mask.owned_softmax)
    monkeypatch.setattr(parts._DefinedSoftmax, "apply", defined)
    measured = parts.by_definition(17)
    measured.step()
    assert defined.call_count == 7, "one per prediction"
    measured.reference()
    assert defined.call_count == 7

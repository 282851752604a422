"""The model zoo page tells what the registry holds and the script counts, and its commands are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from conftest import ROOT
from kmax.checkpoint.published import published
from scripts import convert_weights, model_zoo

PAGE = ROOT / "docs" / "model_zoo.md"


@pytest.mark.parametrize(
    "name",
    [
        "coco_resnet50",
        pytest.param("coco_max_s_tf", marks=pytest.mark.long),
        pytest.param("cityscapes_resnet50_tf", marks=pytest.mark.long),
        pytest.param("ade20k_resnet50_641_tf", marks=pytest.mark.long),
        pytest.param("coconut_s_resnet50", marks=pytest.mark.long),
    ],
)
def test_costs_are_those_that_the_script_counts(name: str) -> None:
    found, entry = model_zoo.cost_of(name), published()[name]
    assert (round(found.parameters, 1), round(found.operations)) == (entry.parameters, entry.gflops)
    assert found.size == entry.size


@pytest.mark.long
def test_an_experiment_is_counted_too() -> None:
    assert model_zoo.cost_of("coco_resnet50:deeplab2", (641, 641)) == model_zoo.cost_of("coco_resnet50_tf", (641, 641))


def test_the_page_is_the_registry(tmp_path: Path) -> None:
    """Every published file has its row; the tables are written by the script alone."""
    copy = tmp_path / "model_zoo.md"
    copy.write_text(PAGE.read_text())
    model_zoo.run(model_zoo.parse(["--page", str(copy)]))
    assert copy.read_text() == PAGE.read_text(), "run scripts/model_zoo.py --page docs/model_zoo.md"
    for name, entry in published().items():
        (row,) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |"))
        assert entry.license in row
        assert all(f"]({url})" in row for url in entry.urls)
        assert all(str(number) in row for number in entry.published.values())
        assert name in row.rsplit("|", 2)[1], "the command"
    copy.write_text(PAGE.read_text().replace("<!-- table: COCONut,", "<!-- table: COCO nut,"))
    with pytest.raises(ValueError, match="differ in their tables: COCO nut"):
        model_zoo.write_page(copy)


def test_the_commands_are_commands() -> None:
    text = PAGE.read_text()
    commands = re.findall(r"python scripts/convert_weights\.py ([^#\n`]+)", text)
    parsed = [convert_weights.parse(shlex.split(command)) for command in commands]
    names = [arguments.download for arguments in parsed if arguments.download]
    assert len(parsed) >= 8
    evaluated = re.findall(r"python evaluate\.py ckpt=(\w+) ", text)
    trained = re.findall(r"backbone\.pretrained=(\w+_tf)\b", text)
    models = {name for name, entry in published().items() if entry.experiment}
    assert models <= {*names, *evaluated}
    assert set(trained) == published().keys() - models

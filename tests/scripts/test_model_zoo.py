"""The model zoo page tells what the script counts, and its commands are commands."""

from __future__ import annotations

import re

import pytest

from conftest import ROOT
from scripts import convert_weights, model_zoo

PAGE = (ROOT / "docs" / "model_zoo.md").read_text()
NAMES = {"ResNet-50": "resnet50", "MaX-S": "max_s"}


def rows(title: str, family: str) -> list[dict[str, str]]:
    """The table of a dataset's section."""
    section = PAGE.split(f"## {title}")[1].split(f"### {family}")[1].split("\n#")[0]
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in section.splitlines() if "|" in line]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


@pytest.mark.parametrize(
    ("title", "family", "dataset", "index"),
    [
        ("COCO", "PyTorch", "coco", 0),
        ("COCO", "TensorFlow", "coco", 1),
        ("Cityscapes", "TensorFlow", "cityscapes", 0),
        ("ADE20K", "TensorFlow", "ade20k", 0),
    ],
)
def test_costs_are_those_that_the_script_counts(title: str, family: str, dataset: str, index: int) -> None:
    row = rows(title, family)[index]
    size = [int(n) for n in row["input"].split("×")] if "input" in row else None
    name = f"{dataset}_{NAMES[row['backbone']]}"
    found = model_zoo.cost(name, {"PyTorch": "detectron2", "TensorFlow": "deeplab2"}[family], size)
    assert f"{found.parameters:.1f}" == row["parameters (M)"]
    assert f"{found.operations:.0f}" == row["GFLOPs"]


def test_the_commands_are_commands() -> None:
    commands = re.findall(r"^    python scripts/convert_weights\.py ([^#\n]+)", PAGE, re.M)
    written = [convert_weights.parse(command.split()).target for command in commands]
    assert len(written) == len(set(written)) == 29
    evaluated = re.findall(r"python evaluate\.py ckpt=(\S+)", PAGE)
    assert set(evaluated) <= set(written)
    assert len(evaluated) == 27
    experiments = {f.stem for f in (ROOT / "conf/experiment").glob("*.yaml")}
    assert {entry.partition(":")[0] for entry in model_zoo.published()} <= experiments

"""The rooms of the house: imports point downward only, and few rooms know Lightning or Hydra."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    {"run_lengths", "files", "names"},
    {"structures", "categories", "geometry", "numerics", "options", "videos", "commands", "console", "processes"},
    {"images", "checkpoint"},
    {"model", "losses", "data", "metrics", "optim", "strategy"},
    {"visualization", "inference"},
    {"results"},
    {"module"},
    {"callbacks"},
    {"config"},
    {"predict"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
LIGHTNING = {"module", "callbacks", "config", "data.datamodule"}
HYDRA = {"config"}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


def modules() -> list[str]:
    files = (ROOT / "kmax").rglob("*.py")
    return sorted(str(f.relative_to(ROOT)) for f in files if f != ROOT / "kmax" / "__init__.py")


@pytest.mark.parametrize("file", modules())
def test_imports_point_downward(file: str) -> None:
    parts = Path(file).with_suffix("").parts[1:]
    room, dotted = parts[0], ".".join(parts)
    for name in imports(ROOT / file):
        top, _, rest = name.partition(".")
        if top == "kmax" and rest:
            other = rest.split(".")[0]
            assert other == room or FLOOR[other] < FLOOR[room], f"{file} imports {name}"
        assert top != "lightning" or room in LIGHTNING or dotted in LIGHTNING, f"{file} knows Lightning"
        assert top not in ("hydra", "omegaconf") or room in HYDRA, f"{file} knows Hydra"


def keys(config: dict, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in config.items():
        if key != "defaults":
            found |= keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
    return found


def test_strategy_and_experiment_share_no_key() -> None:
    strategies = list((ROOT / "conf" / "strategy").glob("*.yaml"))
    experiments = list((ROOT / "conf" / "experiment").glob("*.yaml"))
    assert strategies
    assert experiments
    owned = set().union(*(keys(yaml.safe_load(f.read_text()), "strategy.") for f in strategies))
    for file in experiments:
        assert not owned & keys(yaml.safe_load(file.read_text())), file.name

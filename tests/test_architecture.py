"""The rooms of the house: imports point downward only, and few rooms know Lightning or Hydra."""

from __future__ import annotations

import ast
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from conftest import SLOW
from kmax.config.options import TrainOptions
from kmax.config.sentences import OPTION_OF

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
    {"demo"},
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


ADVICE = {"kmax/data/convert/statistics.py"}
"""Prints what to type for a training, no message about an input of its own."""


def option_keys() -> set[str]:
    """`section.option` of every option of a run."""
    hints = get_type_hints(TrainOptions)
    sections = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    return {f"{name}.{declared.name}" for name, kind in sections.items() for declared in fields(kind)}


def literals(path: Path) -> list[str]:
    """The strings of a module, docstrings aside."""
    tree = ast.parse(path.read_text())
    owners = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    first = {id(n.body[0].value) for n in owners if n.body and isinstance(n.body[0], ast.Expr)}
    constants = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in first]
    return [n.value for n in constants if isinstance(n.value, str)]


@pytest.mark.long
def test_only_the_rooms_from_config_upward_know_a_key_of_the_configuration() -> None:
    """A message names the option in words; `config/sentences.py` adds the key."""
    keys = option_keys()
    assert "optimizer.lr" in keys
    pattern = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, sorted(keys)))})(?![\w.(\[])")
    for file in modules():
        path = ROOT / file
        room = path.relative_to(ROOT / "kmax").parts[0].removesuffix(".py")
        if FLOOR[room] < FLOOR["config"] and path.name != "options.py" and file not in ADVICE:
            for text in literals(path):
                assert not pattern.search(text), f"{file} knows a key: {text}"


def test_the_options_that_messages_name_in_words_exist() -> None:
    keys = option_keys() | {declared.name for declared in fields(TrainOptions)} | {"hydra.run.dir"}
    below = [f for f in modules() if FLOOR[Path(f).parts[1].removesuffix(".py")] < FLOOR["config"]]
    said = "\n".join(text.lower() for file in below for text in literals(ROOT / file))
    for words, key in OPTION_OF.items():
        assert words in said, f"no message speaks of {words}"
        assert key in keys or key.startswith(("callbacks.", "dataset.train"))


def test_the_tests_that_are_left_to_ci_exist() -> None:
    for name in SLOW:
        file, _, test = name.partition("::")
        function = f"def {test.partition('[')[0]}" if test else ""
        assert any(function in path.read_text() for path in ROOT.glob(f"{file}*")), f"there is no test {name}"

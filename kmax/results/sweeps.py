"""Reading the results of a sweep (`train.py -m`), and comparing its settings over seeds.

A run is a folder with the overrides it was started with (`.hydra/overrides.yaml`) and its numbers (`metrics.csv`).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from rich import box
from rich.table import Table
from rich.text import Text

from kmax.console import digits, plain
from kmax.files import replacing

SEED = "seed"
COSTS = {"cost/parameters": ("parameters", 1e-6, "M"), "cost/step_seconds": ("s per step", 1.0, "")}
"""Columns that `kmax.callbacks.Costs` logs: their titles, factors and units in a table."""
PROGRESS = "progress.json"
"""File of a job that other jobs read: see `kmax.callbacks.MedianPruning`."""


@dataclass(frozen=True)
class Run:
    """One run of a sweep: its overrides, and one column of its numbers.

    `steps` (T,) int64, ascending, and `values` (T,) float64: the metric where it was logged. `costs`: the last value of
    each column `cost/…`.
    """

    folder: Path
    overrides: Mapping[str, str]
    steps: np.ndarray
    values: np.ndarray
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """A metric of one setting over steps (T,): `mean` and sample standard deviation `std` (T,) over `runs` seeds; mean
    `costs` over these."""

    name: str
    runs: int
    steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    costs: Mapping[str, float] = field(default_factory=dict)


def read_runs(folder: str | Path, metric: str = "val/pq") -> list[Run]:
    """Every run below `folder` that has numbers, in the order of their names.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: no run logged `metric`; the message lists what was logged.
    """
    files = sorted(Path(folder).glob("**/metrics.csv"), key=_natural)
    files = [file for file in files if (file.parent / ".hydra" / "overrides.yaml").is_file()]
    if not files:
        raise FileNotFoundError(f"There is no run with a metrics.csv below {folder}: give the folder of a sweep.")
    known: set[str] = set()
    runs = []
    for file in files:
        rows = read_metrics(file)
        known |= {key for row in rows for key in row}
        points = {int(row["step"]): row[metric] for row in rows if metric in row}
        steps = np.array(sorted(points), dtype=np.int64)
        if metric.startswith("val/") and len(steps) and steps[-1] == _length(file.parent):
            steps = steps[:-1]  # version 0.1 measured the best checkpoint again after the last step
        if len(steps):
            costs = {key: value for row in rows for key, value in row.items() if key in COSTS}
            values = np.array([points[int(s)] for s in steps])
            runs.append(Run(file.parent, _overrides(file.parent), steps, values, costs))
    if not runs:
        raise ValueError(f"No run below {folder} has logged {metric}; logged were {', '.join(sorted(known))}.")
    return runs


def read_metrics(file: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv: their numbers by column, those that have a step.

    Cells that are not numbers and an incomplete last row are left out; a file that is not a table has no rows.
    """
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        lines = (line.replace("\0", "") for line in stream)
        rows = [{k: _to_float(v) for k, v in row.items() if k is not None} for row in csv.DictReader(lines)]
    numbers = ({k: v for k, v in row.items() if v is not None} for row in rows)
    return [row for row in numbers if "step" in row and row["step"].is_integer()]


def _to_float(text: object) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _length(folder: Path) -> int | None:
    """The configured number of steps of the run in `folder`."""
    file = folder / ".hydra" / "config.yaml"
    if not file.is_file():
        return None
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    steps = (found or {}).get("optimizer", {}).get("steps")
    return steps if isinstance(steps, int) else None


def read_progress(file: Path) -> tuple[dict[int, float], int | None]:
    """(step → value, the step at which the job was pruned or None) of a job; nothing where there is no file yet."""
    if not file.is_file():
        return {}, None
    content = json.loads(file.read_text(encoding="utf-8"))
    return {int(step): value for step, value in content["values"].items()}, content["pruned"]


def comparison(runs: Sequence[Run], metric: str) -> list[dict[str, str]]:
    """One row per run, the highest best value first, numbers in full; settings that all runs share are left out."""
    keys = sorted({key for run in runs for key in run.overrides})
    varied = [key for key in keys if len({run.overrides.get(key) for run in runs}) > 1]
    found = []
    for run in sorted(runs, key=lambda run: -run.values.max()):
        best = int(run.values.argmax())
        found.append(
            {
                "job": run.folder.name,
                **{key: run.overrides.get(key, "") for key in varied},
                f"best {metric}": repr(float(run.values[best])),
                "at step": str(run.steps[best] + 1),
                f"last {metric}": repr(float(run.values[-1])),
                "steps": str(run.steps[-1] + 1),
                "pruned": "" if read_progress(run.folder / PROGRESS)[1] is None else "yes",
            }
        )
    return found


def save_comparison(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """The rows of `comparison` as csv."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def comparison_table(rows: Sequence[Mapping[str, str]]) -> Table:
    """The rows of `comparison` for a terminal, numbers with four digits."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in rows[0]:
        table.add_column(Text(plain(name)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_short(value)) for value in row.values()))
    return table


def _short(text: str) -> str:
    value = _to_float(text)
    return plain(text) if value is None else str(int(text)) if text.isdecimal() else digits(value)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else -1, part) for part in path.parts]


def _overrides(folder: Path) -> dict[str, str]:
    entries = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")) or []
    return {key.lstrip("+~"): value for key, _, value in (str(entry).partition("=") for entry in entries)}


def curves(runs: Sequence[Run]) -> list[Curve]:
    """One curve per setting: runs that differ only in their seed, at the steps that all of them logged."""
    varied = sorted(
        key
        for key in set().union(*(run.overrides for run in runs)) - {SEED}
        if len({run.overrides.get(key) for run in runs}) > 1
    )
    groups: dict[str, list[Run]] = {}
    for run in runs:
        name = ", ".join(f"{key}={run.overrides.get(key, '(default)')}" for key in varied)
        groups.setdefault(name or "all runs", []).append(run)
    return [_curve(name, group) for name, group in groups.items()]


def _curve(name: str, runs: Sequence[Run]) -> Curve:
    steps = np.array(sorted(set.intersection(*(set(run.steps.tolist()) for run in runs))), dtype=np.int64)
    values = np.stack([run.values[np.isin(run.steps, steps)] for run in runs])
    std = values.std(0, ddof=1) if len(runs) > 1 else np.zeros(len(steps))
    known = [key for key in COSTS if all(key in run.costs for run in runs)]
    costs = {key: float(np.mean([run.costs[key] for run in runs])) for key in known}
    return Curve(name, len(runs), steps, values.mean(0), std, costs)


def table(found: Sequence[Curve], metric: str = "val/pq") -> str:
    """A Markdown table: each setting's metric at its last common step, mean ± standard deviation over seeds, and its
    costs where they are known."""
    known = [key for key in COSTS if any(key in curve.costs for curve in found)]
    titles = ["setting", "runs", *(COSTS[key][0] for key in known), "step", metric]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for curve in sorted(found, key=lambda c: -c.mean[-1] if len(c.mean) else np.inf):
        name = plain(curve.name).replace("|", "\\|")
        costs = [_cost(key, curve.costs.get(key)) for key in known]
        last = ["none in common", ""]
        if len(curve.mean):
            spread = f" ± {curve.std[-1]:.2f}" if curve.runs > 1 else ""
            last = [str(curve.steps[-1] + 1), f"{curve.mean[-1]:.2f}{spread}"]
        lines.append(f"| {' | '.join([name, str(curve.runs), *costs, *last])} |")
    return "\n".join(lines)


def _cost(key: str, value: float | None) -> str:
    _, factor, unit = COSTS[key]
    return "" if value is None else f"{digits(value * factor)} {unit}".rstrip()

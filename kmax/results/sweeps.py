"""Reading back what a sweep (`train.py -m`) left behind, and comparing its settings over seeds.

A run is a folder with the overrides it was started with (`.hydra/overrides.yaml`) and its numbers (`metrics.csv`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

SEED = "seed"


@dataclass(frozen=True)
class Run:
    """One run of a sweep: its overrides, and one column of its numbers.

    `steps` (T,) int64, ascending, and `values` (T,) float64: the metric where it was logged.
    """

    folder: Path
    overrides: Mapping[str, str]
    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Curve:
    """A metric of one setting over steps (T,): `mean` and sample standard deviation `std` (T,) over `runs` seeds."""

    name: str
    runs: int
    steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray


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
        with file.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        known |= set(rows[0]) if rows else set()
        points = {int(row["step"]): float(row[metric]) for row in rows if row.get(metric)}
        steps = np.array(sorted(points), dtype=np.int64)
        if metric.startswith("val/") and len(steps) > 1 and steps[-1] - steps[-2] == 1:
            steps = steps[:-1]  # the validation after training, one step beyond the end, repeats the best checkpoint
        if points:
            runs.append(Run(file.parent, _overrides(file.parent), steps, np.array([points[int(s)] for s in steps])))
    if not runs:
        raise ValueError(f"No run below {folder} has logged {metric}; logged were {', '.join(sorted(known))}.")
    return runs


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else -1, part) for part in path.parts]


def _overrides(folder: Path) -> dict[str, str]:
    entries = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text()) or []
    return {key.lstrip("+~"): value for key, _, value in (str(entry).partition("=") for entry in entries)}


def curves(runs: Sequence[Run]) -> list[Curve]:
    """One curve per setting: runs that differ in nothing but their seed, at the steps that all of them logged."""
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
    return Curve(name, len(runs), steps, values.mean(0), std)


def table(found: Sequence[Curve], metric: str = "val/pq") -> str:
    """A Markdown table: each setting's metric at its last common step, mean ± standard deviation over seeds."""
    lines = [f"| setting | runs | step | {metric} |", "| --- | --- | --- | --- |"]
    for curve in sorted(found, key=lambda c: -c.mean[-1] if len(c.mean) else np.inf):
        if not len(curve.mean):
            lines.append(f"| {curve.name} | {curve.runs} | none in common | |")
            continue
        spread = f" ± {curve.std[-1]:.2f}" if curve.runs > 1 else ""
        lines.append(f"| {curve.name} | {curve.runs} | {curve.steps[-1] + 1} | {curve.mean[-1]:.2f}{spread} |")
    return "\n".join(lines)

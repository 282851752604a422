"""One table of a sweep: a row per job with the settings in which the jobs differ, best job first.

    python scripts/sweep_table.py runs/shapes/sweep-2026-01-01_12-00-00

The table is printed and written to SWEEP/results.csv.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kmax.callbacks.pruning import PROGRESS, read_progress
from kmax.files import replacing
from kmax.results.sweeps import Run, read_runs


def rows(runs: Sequence[Run], metric: str) -> list[dict[str, str]]:
    """One row per run, the highest best value first; settings that all runs share are left out."""
    keys = sorted({key for run in runs for key in run.overrides})
    varied = [key for key in keys if len({run.overrides.get(key) for run in runs}) > 1]
    found = []
    for run in sorted(runs, key=lambda run: -run.values.max()):
        pruned = read_progress(run.folder / PROGRESS)[1]
        best = int(run.values.argmax())
        found.append(
            {
                "job": run.folder.name,
                **{key: run.overrides.get(key, "") for key in varied},
                f"best {metric}": f"{run.values[best]:.2f}",
                "at step": str(run.steps[best] + 1),
                f"last {metric}": f"{run.values[-1]:.2f}",
                "steps": str(run.steps[-1] + 1),
                "pruned": "" if pruned is None else "yes",
            }
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="folder of the sweep")
    parser.add_argument("--metric", default="val/pq", help="a column of metrics.csv (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        found = rows(read_runs(options.sweep, options.metric), options.metric)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    with replacing(options.sweep / "results.csv") as path, path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, found[0])
        writer.writeheader()
        writer.writerows(found)
    table = Table()
    for name in found[0]:
        table.add_column(name, overflow="fold")
    for row in found:
        table.add_row(*row.values())
    Console().print(table)
    print(f"table · {options.sweep / 'results.csv'}")


if __name__ == "__main__":
    main()

"""One table of a sweep: a row per job with the settings in which the jobs differ, best job first.

    python scripts/sweep_table.py runs/shapes/sweep-2026-01-01_12-00-00

The table is printed and written to SWEEP/results.csv.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from kmax.results.sweeps import comparison, comparison_table, read_runs, save_comparison


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="folder of the sweep")
    parser.add_argument("--metric", default="val/pq", help="a column of metrics.csv (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        found = comparison(read_runs(options.sweep, options.metric), options.metric)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    save_comparison(found, options.sweep / "results.csv")
    Console().print(comparison_table(found))
    print(f"table · {options.sweep / 'results.csv'}")


if __name__ == "__main__":
    main()

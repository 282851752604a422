"""Compare the settings of a sweep over seeds: a table on the terminal and a plot of the metric over steps.

    python train.py -m sweep=attention
    python scripts/plot_sweep.py runs/attention/sweep-… --output docs/images/attention.png

Runs that differ only in their seed are one setting: a line for their mean, a band for one standard deviation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kmax.console import plain
from kmax.files import replacing
from kmax.results.sweeps import Curve, curves, read_runs, table


def unmarked(text: str) -> str:
    """Text escaped for matplotlib, where a dollar sign would begin a formula."""
    return plain(text).replace("$", r"\$")


def plot(found: Sequence[Curve], metric: str, title: str, path: Path) -> None:
    """Write the curves as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), dpi=130, layout="constrained")
    for curve in found:
        label = f"{unmarked(curve.name)} ({curve.runs} seed{'s' if curve.runs > 1 else ''})"
        (line,) = axes.plot(curve.steps + 1, curve.mean, marker="o", markersize=3.5, label=label)
        axes.fill_between(
            curve.steps + 1, curve.mean - curve.std, curve.mean + curve.std, alpha=0.2, color=line.get_color()
        )
    axes.set(xlabel="optimizer steps", ylabel=unmarked(metric), title=unmarked(title))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    with replacing(path) as temporary:
        figure.savefig(temporary)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", help="folder of the sweep, or any folder with runs below it")
    parser.add_argument("--metric", default="val/pq", help="a column of metrics.csv (default: %(default)s)")
    parser.add_argument("--title", default="", help="title of the plot")
    parser.add_argument("--output", type=Path, default=None, help="PNG to write (default: SWEEP/curves.png)")
    options = parser.parse_args(arguments)
    output = options.output or Path(options.sweep) / "curves.png"
    try:
        found = curves(read_runs(options.sweep, options.metric))
        plot(found, options.metric, options.title, output)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f"error: plotting needs {error.name}: pip install 'kmax-deeplab[notebooks]'.")
    print(table(found, options.metric))
    print(f"plot · {output}")


if __name__ == "__main__":
    main()

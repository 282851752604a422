"""The lines that a sweep prints: its folder at the beginning, a table at the end."""

from __future__ import annotations

import atexit
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from kmax.config.folder import shown
from kmax.results.sweeps import comparison, comparison_table, read_runs, save_comparison


class SweepStory(Callback):
    """Name the folder of a sweep before its first job, and compare the jobs when it ends: also after a job has
    failed or after Ctrl-C there is a table of the finished jobs."""

    def __init__(self, metric: str = "val/pq") -> None:
        self.metric = metric
        self._folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **options: object) -> None:
        self._folder = Path(config.hydra.sweep.dir)
        self.metric = config.get("metric", self.metric)
        print(f"sweep folder · {shown(self._folder.absolute())}", flush=True)
        atexit.register(self._finish)  # Hydra calls no callback if a job has failed

    def on_multirun_end(self, config: DictConfig, **options: object) -> None:
        self._finish()

    def _finish(self) -> None:
        folder, self._folder = self._folder, None
        if folder is None:
            return
        try:
            rows = comparison(read_runs(folder, self.metric), self.metric)
        except (ValueError, FileNotFoundError):
            print(f"No job below {shown(folder.absolute())} has come as far as {self.metric}.", flush=True)
            return
        save_comparison(rows, folder / "results.csv")
        Console().print(comparison_table(rows))
        print(f"table · {shown(folder.absolute() / 'results.csv')}", flush=True)

"""What a run leaves in its loggers: read back from Weights & Biases' own files, TensorBoard's and metrics.csv."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from wandb_files import read_run

import kmax
from conftest import SMALL_RUN, run_python
from kmax.callbacks import ContinuedCSVLogger, wandb_logger
from kmax.callbacks.loggers import run_id_in
from kmax.callbacks.tracking import code_version


@pytest.fixture(scope="module")
def tracked_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with all loggers, by a user who is not logged in."""
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("tracked")
    home: dict[str, Any] = {"HOME": str(folder), "WANDB_API_KEY": "", "NETRC": str(folder / "none"), "WANDB_MODE": ""}
    overrides = [*SMALL_RUN, "logger=all", "callbacks.tracking.artifacts=true", f"hydra.run.dir={folder}"]
    result = run_python("train.py", *overrides, **home)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def run(tracked_run: Path) -> dict[str, Any]:
    (file,) = tracked_run.glob("wandb/offline-run-*/*.wandb")
    return {**read_run(file), "files": file.parent / "files"}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loggers of wandb in this process that neither ask nor leave their service running."""
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/nonexistent")
    yield
    close_wandb()


def close_wandb() -> None:
    """End the run and the service: only then are the files complete."""
    import wandb

    wandb.finish()
    wandb.teardown()


def test_wandb_has_the_configuration_and_the_code_version(run: dict[str, Any]) -> None:
    assert run["name"] == "shapes"
    config = run["config"]
    assert config["optimizer"]["steps"] == 2
    assert config["plan"]["effective_batch"] == 2
    assert config["dataset"]["train"]["length"] == 8
    assert config["code"] == code_version()


def test_wandb_has_metrics_panels_and_a_table_per_class(run: dict[str, Any]) -> None:
    history = run["history"]
    assert len([row for row in history if row.get("train/loss", 0) > 0]) == 2
    scores = [row["val/pq"] for row in history if "val/pq" in row]
    assert scores
    panels = next(row for row in history if "val/panels.filenames" in row)["val/panels.filenames"]
    assert len(panels) == 4
    assert all((run["files"] / panel).is_file() for panel in panels)
    tables = [row["val/per_class.path"] for row in history if "val/per_class.path" in row]
    table = json.loads((run["files"] / tables[-1]).read_text())
    assert table["columns"] == ["class", "pq", "sq", "rq", "tp", "fp", "fn"]
    assert [row[0] for row in table["data"][:3]] == ["all", "things", "stuff"]
    assert table["data"][0][1] == pytest.approx(scores[-1])


def test_wandb_has_the_best_and_the_last_checkpoint(run: dict[str, Any]) -> None:
    aliases = {name: aliases for name, aliases in run["artifacts"] if name.startswith(run["id"])}
    assert "best" in aliases[f"{run['id']}-best"]
    assert "last" in aliases[f"{run['id']}-last"]


def test_tensorboard_has_the_metrics(tracked_run: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(str(tracked_run / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("train/loss")] == [0, 1]
    assert "val/pq" in events.Tags()["scalars"]


def test_a_second_start_goes_on_in_the_same_run(tracked_run: Path, run: dict[str, Any], offline: None) -> None:
    logger = wandb_logger(save_dir=str(tracked_run), project="kmax")
    assert logger.experiment.settings._offline, "nobody is logged in, and nobody is asked"
    logger.log_metrics({"train/loss": 1.0}, step=2)
    close_wandb()
    files = sorted(tracked_run.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    assert {read_run(file)["id"] for file in files} == {run["id"]} == {run_id_in(tracked_run)}


@pytest.mark.long
def test_jobs_of_a_sweep_are_runs_of_one_group(tmp_path: Path, offline: None) -> None:
    for job in ("0", "1"):
        # Neither is finished: a sweep in one process continues with the next job.
        wandb_logger(save_dir=str(tmp_path / job), project="kmax", group="sweep", name=job).log_metrics({"a": 1.0}, 0)
    close_wandb()
    runs = [read_run(next((tmp_path / job).glob("wandb/offline-run-*/*.wandb"))) for job in ("0", "1")]
    assert [run["group"] for run in runs] == ["sweep", "sweep"]
    assert runs[0]["id"] != runs[1]["id"]
    assert all(run["history"] for run in runs)


def test_an_unknown_mode_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^mode=onlien is unknown"):
        wandb_logger(save_dir=str(tmp_path), mode="onlien")


def test_metrics_of_an_interrupted_run_are_kept(tmp_path: Path) -> None:
    def start(steps: range, value: float) -> list[dict[str, str]]:
        logger = ContinuedCSVLogger(save_dir=str(tmp_path), name="", version="")
        logger.log_hyperparams({"lr": value})
        for step in steps:
            logger.log_metrics({"loss": value, f"only/{value}": 1.0}, step)
        logger.save()
        return list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))

    start(range(0, 6), 1.0)
    rows = start(range(4, 8), 2.0)  # the checkpoint was of step 4
    assert [(int(row["step"]), float(row["loss"])) for row in rows] == [
        *((step, 1.0) for step in range(4)),
        *((step, 2.0) for step in range(4, 8)),
    ]
    assert [row["only/1.0"] for row in rows][3:5] == ["1.0", ""]
    assert [float(row["loss"]) for row in start(range(2), 3.0)] == [3.0, 3.0], "a fresh start keeps nothing"


ODD_TABLES = {
    "cut off": b"step,loss\n0,1.0\n1,",
    "cut in a step": b"step,loss\n0,1.0\n1",
    "text": b"step,loss\n0,1.0\nhello,world,again\n",
    "zeros": b"step,loss\n0,1.0\n\0\0\0\0",
    "not UTF-8": b"step,loss\n0,1.0\n\xff\xfe\n",
    "no step": b"a,b\n1,2\n",
    "no table": b"PK\x03\x04\0\0\xff",
}


UNNOTICED = ("cut off", "zeros")
"""What a killed process or a full disk leaves, and nothing is lost by."""


@pytest.mark.parametrize(("name", "content"), ODD_TABLES.items(), ids=ODD_TABLES)
def test_an_odd_table_is_kept_beside(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.warns(UserWarning, match=r"kept as metrics-odd-1\.csv") if name not in UNNOTICED else nullcontext():
        logger = ContinuedCSVLogger(save_dir=str(tmp_path), name="", version="")
    logger.log_metrics({"loss": 2.0}, 1)
    logger.save()
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    earlier = [("0", "1.0")] if content.startswith(b"step") else []
    assert [(row["step"], row["loss"]) for row in rows] == [*earlier, ("1", "2.0")]
    if name not in UNNOTICED:
        assert (tmp_path / "metrics-odd-1.csv").read_bytes() == content


def test_the_code_version_outside_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmax, "__file__", str(tmp_path / "__init__.py"))
    assert code_version() == {"version": kmax.__version__, "commit": None, "dirty": None}
    monkeypatch.setenv("PATH", "")
    assert code_version()["commit"] is None

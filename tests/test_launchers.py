"""Presets of launchers, sweepers and sweeps compose; what cannot run is refused; bad jobs of a sweep end early."""

from __future__ import annotations

import csv
import json
import math
import runpy
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from conftest import ROOT, SMALL_RUN, run_python
from kmax.callbacks.pruning import hopeless
from kmax.config.compose import conf_dir, register, strategy_options
from kmax.strategy.options import StrategyOptions
from kmax.strategy.slurm import check_multirun, slurm_resources

PLUGINS = {"slurm_v100": "hydra_submitit_launcher", "joblib_local": "hydra_joblib_launcher"}
sweep_table = runpy.run_path(str(ROOT / "scripts/sweep_table.py"))["main"]
submit = runpy.run_path(str(ROOT / "scripts/slurm/submit.py"))["command"]


def names(group: str) -> list[str]:
    return sorted(f.stem for f in (conf_dir() / group).glob("*.yaml"))


def with_hydra(*overrides: str):
    """The configuration with the section `hydra`, as a sweep reads it."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", list(overrides), return_hydra_config=True)


@pytest.mark.parametrize("launcher", names("hydra/launcher"))
@pytest.mark.parametrize("strategy", ["gpu", "ddp_multinode"])
def test_every_launcher_composes(launcher: str, strategy: str) -> None:
    pytest.importorskip(f"hydra_plugins.{PLUGINS[launcher]}")
    config = with_hydra(f"hydra/launcher={launcher}", "experiment=coco_resnet50", f"strategy={strategy}")
    config.hydra.sweep.dir = "sweep"
    settings: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    if launcher == "slurm_v100":
        asked = slurm_resources(strategy_options(config))
        assert (settings["nodes"], settings["tasks_per_node"]) == (asked.nodes, asked.tasks_per_node)
        assert settings["gpus_per_node"] == asked.gpus_per_node == (1 if strategy == "gpu" else 8)
        assert settings["name"] == "coco_resnet50"
        assert settings["additional_parameters"]["requeue"] is True


@pytest.mark.parametrize("sweeper", names("hydra/sweeper"))
def test_every_sweeper_composes(sweeper: str) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    config = with_hydra(f"hydra/sweeper={sweeper}", "seed=7")
    settings: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    assert settings["direction"] == "maximize"
    assert settings["sampler"]["seed"] == 7


@pytest.mark.parametrize("sweep", names("sweep"))
def test_every_sweep_composes(sweep: str) -> None:
    if "optuna" in sweep:
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    assert with_hydra(f"sweep={sweep}").hydra.sweeper.params


@pytest.mark.long
def test_the_submission_command_asks_for_what_the_strategy_has() -> None:
    words, plan = submit(["--time=1:00:00", "experiment=coco_resnet50", "strategy=ddp_multinode"])
    assert plan.startswith("effective batch 64 = 32 devices")
    for word in ("--nodes=4", "--ntasks-per-node=8", "--gres=gpu:8", "--job-name=coco_resnet50", "--time=1:00:00"):
        assert word in words
    assert words[-3:] == [
        str(ROOT / "scripts/slurm/train.sbatch"),
        "experiment=coco_resnet50",
        "strategy=ddp_multinode",
    ]
    with pytest.raises(ValueError, match=r"strategy.devices=-1 cannot be queued"):
        submit(["experiment=coco_resnet50", "strategy=ddp"])


def test_a_sweep_that_would_repeat_itself_is_refused() -> None:
    two = StrategyOptions(accelerator="cpu", devices=2, strategy="ddp")
    for launcher in ("BasicLauncher", "JoblibLauncher"):
        with pytest.raises(ValueError, match=r"hydra/launcher=slurm_v100"):
            check_multirun(two, launcher, {})
    check_multirun(two, "SlurmLauncher", {})
    check_multirun(two, "BasicLauncher", {"LOCAL_RANK": "0"})
    check_multirun(two, "BasicLauncher", {"SLURM_NTASKS": "2"})
    check_multirun(StrategyOptions(accelerator="cpu"), "BasicLauncher", {})


def test_the_median_rule() -> None:
    others = [{2: 10.0, 4: 20.0}, {2: 20.0, 4: 30.0}, {2: 30.0}]
    assert hopeless({2: 19.0}, others, 2, min_jobs=3)
    assert not hopeless({2: 20.0}, others, 2, min_jobs=3)
    assert not hopeless({2: 0.0}, others, 2, min_jobs=4), "too few to judge by"
    assert not hopeless({4: 0.0}, others, 4, min_jobs=3), "the third has not come as far"
    assert not hopeless({2: 40.0, 4: 1.0}, others, 4, min_jobs=2), "it has been better than that"
    assert hopeless({2: math.nan}, others, 2, min_jobs=3)


@pytest.fixture(scope="module")
def pruned_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of two jobs that come after one good job and one bad one, by hand."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    folder = tmp_path_factory.mktemp("sweep")
    for name, pq in (("good", 50.0), ("better", 60.0)):
        (folder / name).mkdir()
        (folder / name / "progress.json").write_text(json.dumps({"values": {"2": pq, "4": pq}, "pruned": None}))
    result = run_python(
        "train.py", "-m", *SMALL_RUN, "sweep=optuna", "hydra.sweeper.n_trials=2", "callbacks.pruning.min_jobs=2",
        "callbacks.pruning.warmup_steps=3", "optimizer.steps=12", "trainer.val_every_steps=2",
        "callbacks.panels.images=0", f"hydra.sweep.dir={folder}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("Pruned at step 4") == 2
    return folder


def test_a_job_below_the_median_ends_early(pruned_sweep: Path) -> None:
    for job in ("0", "1"):
        progress = json.loads((pruned_sweep / job / "progress.json").read_text())
        assert (list(progress["values"]), progress["pruned"]) == (["2", "4"], 4)
        rows = list(csv.DictReader((pruned_sweep / job / "metrics.csv").read_text().splitlines()))
        assert max(int(row["step"]) for row in rows) < 6, "twelve steps were asked for"
    assert "best_value" in (pruned_sweep / "optimization_results.yaml").read_text()


def test_one_table_of_a_sweep(pruned_sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep_table([str(pruned_sweep)])
    assert "results.csv" in capsys.readouterr().out
    rows = list(csv.DictReader((pruned_sweep / "results.csv").read_text().splitlines()))
    assert sorted(row["job"] for row in rows) == ["0", "1"]
    for row in rows:
        overrides = (pruned_sweep / row["job"] / ".hydra/overrides.yaml").read_text()
        assert f"optimizer.lr={row['optimizer.lr']}" in overrides
        assert (row["steps"], row["pruned"]) == ("4", "yes")
    assert "optimizer.steps" not in rows[0], "what all jobs share is left out"


@pytest.mark.long
def test_jobs_side_by_side_have_workers_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    result = run_python(
        "train.py", "-m", *SMALL_RUN, "hydra/launcher=joblib_local", "seed=1,2", "strategy.num_workers=1",
        "callbacks.panels.images=0", f"hydra.sweep.dir={tmp_path}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert all((tmp_path / job / "checkpoints/best.ckpt").is_file() for job in ("0", "1"))

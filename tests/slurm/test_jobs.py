"""Jobs on a real SLURM of two virtual nodes: submitted, interrupted, requeued, and the same in the end."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from slurm.cluster import Cluster, wait_for
from wandb_files import read_run

from conftest import ROOT, run_python
from kmax.results.sweeps import read_runs
from small_run import SMALL_MODEL

STEPS = 20
SMALL = (
    *SMALL_MODEL,
    "dataset.val.length=2",
    "dataset.batch_size=2",
    "loss.samples=64",
    f"optimizer.steps={STEPS}",
    "optimizer.warmup_steps=3",
    f"trainer.val_every_steps={STEPS}",
    "trainer.save_every_steps=2",
    "trainer.log_every_steps=1",
    "trainer.enable_progress_bar=false",
    "callbacks.panels.images=1",
    "strategy=cpu",
    "strategy.num_workers=0",
    "strategy.strategy=ddp",
)
"""A run of some seconds, with random paths dropped and random pixels drawn."""
TWO_NODES = ("strategy.num_nodes=2",)

submission = runpy.run_path(str(ROOT / "scripts/slurm/submit.py"))["command"]


def environment(cluster: Cluster) -> dict[str, Any]:
    """How jobs find the project, and each other: all nodes are this machine."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    own = {"PYTHONPATH": paths, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "KMAX_PYTHON": sys.executable}
    return {**cluster.env, **own}


def submit(cluster: Cluster, folder: Path, *arguments: str, pace: float) -> str:
    """Queue a run on two nodes that sleeps `pace` seconds after each step; returns the job's id."""
    overrides = [*SMALL, *TWO_NODES, f"hydra.run.dir={folder}/${{run_id:}}"]
    overrides.append(f"+callbacks.pace={{_target_: slurm.pace.Pace, seconds: {pace}}}")
    words, _ = submission([f"--output={folder}/log-%j", *arguments, *overrides])
    return re.findall(r"job (\d+)", cluster.run(*words, **environment(cluster)))[0]


def last(folder: Path, job: str) -> Path:
    return folder / f"slurm-{job}" / "checkpoints" / "last.ckpt"


def state(folder: Path, job: str) -> dict[str, Any]:
    return torch.load(last(folder, job), map_location="cpu", weights_only=True)


def assert_same_state(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Bit for bit: weights and the optimizer's moments."""
    assert one["global_step"] == other["global_step"] == STEPS
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    for states in zip(*(c["optimizer_states"][0]["state"].values() for c in (one, other)), strict=True):
        assert torch.equal(states[0]["exp_avg_sq"], states[1]["exp_avg_sq"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def jobs(cluster: Cluster, folder: Path) -> Iterator[dict[str, str]]:
    """Three jobs that run side by side: one that nobody disturbs, one to be signalled, one with a short time limit."""
    started = {
        "undisturbed": submit(cluster, folder, pace=0),
        # Within 40 seconds of its start SLURM asks it to stop, which is before its steps are done.
        "limited": submit(cluster, folder, "--time=1", "--signal=USR1@20", pace=2),
        "signalled": submit(cluster, folder, "logger=wandb", "logger.wandb.mode=offline", pace=1),
    }
    yield started
    cluster.run("scancel", *started.values(), check=False)


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, folder: Path, jobs: dict[str, str]) -> dict[str, Any]:
    """The last state of a run on two nodes, and what it printed."""
    cluster.wait(jobs["undisturbed"], 300)
    return {**state(folder, jobs["undisturbed"]), "log": (folder / f"log-{jobs['undisturbed']}").read_text()}


def test_a_signal_requeues_the_job(cluster: Cluster, folder: Path, jobs: dict[str, str]) -> None:
    job = jobs["signalled"]
    wait_for(last(folder, job).exists, 300, "a checkpoint")
    cluster.run("scancel", "--signal=USR1", job)
    wait_for(lambda: cluster.show(job)["Restarts"] == "1", 60, "the job to be requeued")
    assert f"SLURM job {job} requeued" in (folder / f"log-{job}").read_text()


def test_two_nodes_train_together(undisturbed: dict[str, Any]) -> None:
    assert undisturbed["global_step"] == STEPS
    assert "effective batch 2 = 2 devices × 1 per device × 1 accumulated" in undisturbed["log"]


def test_a_signalled_run_ends_as_if_undisturbed(
    cluster: Cluster, folder: Path, jobs: dict[str, str], undisturbed: dict[str, Any]
) -> None:
    job = jobs["signalled"]
    assert cluster.wait(job, 300)["Restarts"] == "1"
    assert_same_state(state(folder, job), undisturbed)
    (run,) = read_runs(folder / f"slurm-{job}", "train/loss")
    # The step after which a run stops is done but not logged.
    assert len(run.steps) >= STEPS - 1
    assert run.steps[[0, -1]].tolist() == [0, STEPS - 1]


def test_wandb_goes_on_in_the_same_run(cluster: Cluster, folder: Path, jobs: dict[str, str]) -> None:
    cluster.wait(jobs["signalled"], 300)
    files = sorted((folder / f"slurm-{jobs['signalled']}").glob("wandb/offline-run-*/*.wandb"))
    first, second = (read_run(file) for file in files)
    assert first["id"] == second["id"]
    assert first["config"]["optimizer"] == second["config"]["optimizer"]
    steps = [{row["trainer/global_step"] for row in run["history"] if "train/loss" in row} for run in (first, second)]
    assert len(steps[0] | steps[1]) >= STEPS - 1
    assert not steps[0] & steps[1]


def test_a_run_with_a_time_limit_goes_on_in_another_job(
    cluster: Cluster, folder: Path, jobs: dict[str, str], undisturbed: dict[str, Any]
) -> None:
    job = jobs["limited"]
    wait_for(lambda: int(cluster.show(job)["Restarts"]) >= 1, 120, "the time limit")
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=UNLIMITED")
    cluster.wait(job, 300)
    assert_same_state(state(folder, job), undisturbed)


def test_preemption_by_a_higher_partition(
    cluster: Cluster, folder: Path, jobs: dict[str, str], undisturbed: dict[str, Any]
) -> None:
    for other in jobs.values():
        cluster.wait(other, 400)
    job = submit(cluster, folder, pace=1)
    wait_for(last(folder, job).exists, 300, "a checkpoint")
    urgent = cluster.run("sbatch", "-p", "high", "-N2", "--exclusive", "-o", f"{folder}/urgent", "--wrap", "sleep 1")
    cluster.wait(re.findall(r"job (\d+)", urgent)[0], 120)
    assert cluster.wait(job, 300)["Restarts"] == "1"
    assert "Stopped by SIGUSR1" in (folder / f"log-{job}").read_text()
    assert_same_state(state(folder, job), undisturbed)


def test_a_sweep_of_jobs_with_two_tasks_each(cluster: Cluster, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    command = [sys.executable, "train.py", "-m", "hydra/launcher=slurm_v100", "hydra.launcher.timeout_min=10"]
    command += [*SMALL, "strategy.devices=2", "seed=1,2", f"hydra.sweep.dir={tmp_path}"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(cluster), capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for job, seed in (("0", "1"), ("1", "2")):
        checkpoint = torch.load(tmp_path / job / "checkpoints/last.ckpt", weights_only=True)
        assert (checkpoint["global_step"], checkpoint["kmax_config"]["seed"]) == (STEPS, int(seed))
        assert checkpoint["kmax_config"]["plan"]["total_devices"] == 2
        assert f"seed={seed}" in yaml.safe_load((tmp_path / job / ".hydra/overrides.yaml").read_text())
    script = next(tmp_path.glob(".submitit/*/*_submission.sh")).read_text()
    for option in ("--requeue", "--ntasks-per-node=2", "--nodes=1", "--signal=USR2@300"):
        assert f"#SBATCH {option}" in script
    result = run_python("scripts/sweep_table.py", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 3

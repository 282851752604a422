"""Each run has a folder of its own, also two that start in the same second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, SMALL_RUN
from kmax.config import compose
from kmax.config.compose import run_dir

IN_ONE_SECOND = (
    "import runpy, sys, time; time.strftime = lambda *_: 'now'; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Runs a program on a clock that stands still."""


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "WORLD_SIZE", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_runs_of_one_second_get_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose.time, "strftime", lambda _: "now")
    folders = [run_dir(str(tmp_path / "demo")) for _ in range(3)]
    assert [Path(folder).name for folder in folders] == ["now", "now-2", "now-3"]
    assert Path(run_dir(str(tmp_path / "demo"), "sweep-")).name == "sweep-now"


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [("SLURM_JOB_ID", "12", "slurm-12"), ("TORCHELASTIC_RUN_ID", "a/b", "torchrun-a_b")],
)
def test_the_processes_of_one_job_share_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert {run_dir(str(tmp_path)) for _ in range(3)} == {f"{tmp_path}/{name}"}


def test_ranks_with_clocks_of_their_own_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"give all of them the same one, e\.g\. hydra\.run\.dir="):
        run_dir(str(tmp_path))


@pytest.mark.slow
def test_two_programs_that_start_in_one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-c", IN_ONE_SECOND, str(ROOT / "train.py"), *SMALL_RUN, "name=twins"]
    runs = [
        subprocess.Popen([*command, f"seed={seed}"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) for seed in (3, 4)
    ]
    printed = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "runs/twins").iterdir()) == ["now", "now-2"]
    for seed, text in zip((3, 4), printed, strict=True):
        folder = tmp_path / text.splitlines()[0].removeprefix("run folder · ")
        assert (folder / "checkpoints/last.ckpt").is_file()
        assert (folder / "train.log").read_text(encoding="utf-8") == text
        assert f"seed={seed}" in yaml.safe_load((folder / ".hydra/overrides.yaml").read_text())

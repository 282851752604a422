"""The console of real runs, line by line: a run, one that continues after Ctrl-C, one that fails, a sweep, an
evaluation, a prediction. Numbers are replaced by N."""

from __future__ import annotations

import csv
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from conftest import ROOT, run_python
from kmax.console import override
from small_run import SMALL_MODEL

pytestmark = pytest.mark.slow
SMALL = (
    *SMALL_MODEL, "dataset.val.length=3", "dataset.batch_size=2", "loss.samples=64", "optimizer.warmup_steps=1",
    "optimizer.steps=8", "trainer.val_every_steps=4", "trainer.save_every_steps=1", "callbacks.progress.seconds=0",
    "callbacks.progress.refresh_rate=2", "strategy=cpu", "strategy.num_workers=1",
)  # fmt: skip
ESCAPE = "\x1b"
TRAINING = "step {}/8 · N images/s · N left · loss N"
VALIDATION = "validating batch {}/3"
SCORES = "PQ N · things N · stuff N"


def without_numbers(text: str) -> list[str]:
    """The lines with durations and numbers as N, but those of steps and batches."""
    lines = []
    for line in text.splitlines():
        line = re.sub(r"\b\d+:\d\d:\d\d\b", "N", line)
        line = re.sub(r"\b\d+(\.\d+)?(e[+-]?\d+)? images/s", "N images/s", line)
        line = re.sub(r"(loss|PQ|things|stuff|best|val/pq) \d+(\.\d+)?", r"\1 N", line)
        lines.append(re.sub(r"\d+\.\d+ M", "N M", line))
    return lines


def validation(done: int) -> list[str]:
    return [
        "validating batch 1/3",
        "validating batch 2/3 · N images/s · N left",
        "validating batch 3/3 · N images/s · N left",
        f"validated at step {done}/8 · {SCORES} · best N at step {done} · checkpoints/best.ckpt written",
    ]


def end(folder: Path) -> list[str]:
    best = f"ckpt={folder}/checkpoints/best.ckpt"
    return [
        "val/pq N at step 8",
        f"  best     {folder}/checkpoints/best.ckpt",
        f"  last     {folder}/checkpoints/last.ckpt",
        f"  numbers  {folder}/metrics.csv",
        f"  pictures {folder}/panels",
        f"  log      {folder}/train.log",
        "next",
        f"  python evaluate.py {best}",
        f"  python scripts/predict.py {best} input=PHOTOS",
        f"  python scripts/demo.py {best}",
    ]


PLAN = (
    "plan · 8 steps · effective batch 2 = 1 device × 2 per device × 1 accumulated · validated every 4 steps · "
    "N M parameters"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder of a run, what it printed, and its warnings."""
    folder = tmp_path_factory.mktemp("finished")
    result = run_python("train.py", *SMALL, f"hydra.run.dir={folder}")
    assert result.returncode == 0, result.stderr
    return folder, result.stdout, result.stderr


def test_a_run(finished: tuple[Path, str, str]) -> None:
    folder, printed, errors = finished
    after = f"{TRAINING} · PQ N · best N"
    assert without_numbers(printed) == [
        f"run folder · {folder}",
        PLAN,
        TRAINING.format(2),
        TRAINING.format(4),
        *validation(4),
        after.format(6),
        after.format(8),
        *validation(8),
        *end(folder),
    ]
    assert errors == ""
    assert (folder / "train.log").read_text(encoding="utf-8") == printed
    assert len({p.name.split("-")[0] for p in (folder / "panels").iterdir()}) == 2
    with (folder / "metrics.csv").open() as file:
        steps = [row["step"] for row in csv.DictReader(file)]
    assert sorted(set(steps), key=int)[-1] == "7", "the last row belongs to the last step"


LONG = 40
IN_LONG = (f"optimizer.steps={LONG}", f"trainer.val_every_steps={LONG}")


def interrupted(folder: Path) -> tuple[int, str, str]:
    """Status and output of a run to which Ctrl-C is sent after some steps, to its workers too, as a terminal does."""
    command = [sys.executable, "train.py", *SMALL, *IN_LONG, override("hydra.run.dir", folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, stdout=pipe, stderr=pipe, text=True
    ) as process:
        log, stop = folder / "train.log", time.monotonic() + 300
        while time.monotonic() < stop and not (log.is_file() and "step 2/" in log.read_text(encoding="utf-8")):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        printed, errors = process.communicate(timeout=300)
    return process.returncode, printed, errors


def test_ctrl_c_saves_and_the_printed_command_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "a (1) = ä's"
    code, printed, errors = interrupted(folder)
    assert code == 75, errors
    *_, stopped, go_on = printed.splitlines()
    found = re.fullmatch(
        rf"Stopped by SIGINT after step (\d+); {re.escape(str(folder))}/checkpoints/last.ckpt is written.", stopped
    )
    assert found is not None, stopped
    assert errors.strip() == "Ctrl-C: this step is finished, then the run is saved; once more ends it at once, unsaved."
    python, script, *arguments = shlex.split(go_on.removeprefix("To go on: "))
    assert (python, script) == ("python", "train.py")
    result = run_python(script, *arguments)
    assert result.returncode == 0, result.stderr
    first, plan, going_on, step, *_ = without_numbers(result.stdout)
    assert first == f"run folder · {folder}"
    assert plan == PLAN.replace("8 steps", f"{LONG} steps").replace("every 4", f"every {LONG}")
    assert going_on == f"Going on from {folder}/checkpoints/last.ckpt"
    assert int(found[1]) < int(step.partition("/")[0].removeprefix("step ")) <= int(found[1]) + 2
    assert (folder / "train.log").read_text(encoding="utf-8") == printed + result.stdout


def test_a_failed_start_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "runs/name/now"
    result = run_python("train.py", *SMALL, "init_from=/nowhere.ckpt", f"hydra.run.dir={folder}")
    assert result.returncode == 1
    assert result.stdout.splitlines()[0] == f"run folder · {folder}"
    sentence, hint = result.stderr.splitlines()
    assert sentence.startswith("error: There is no checkpoint /nowhere.ckpt")
    assert hint == "(HYDRA_FULL_ERROR=1 shows where it came from)"
    assert not folder.exists()


def test_a_sweep(tmp_path: Path) -> None:
    short = ("optimizer.steps=2", "trainer.val_every_steps=2", "callbacks.panels.images=0")
    result = run_python("train.py", "-m", *SMALL, *short, "optimizer.lr=0.00123456,10", f"hydra.sweep.dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"sweep folder · {tmp_path}"
    assert [line for line in lines if line.startswith("run folder")] == [
        f"run folder · {tmp_path}/{job}" for job in (0, 1)
    ]
    assert not [line for line in lines if line.startswith("next")]
    table = [line.split() for line in lines[-6:-1] if line.strip()]
    assert table[0][:2] == ["job", "optimizer.lr"]
    assert sorted(row[1] for row in table[2:]) == ["0.001235", "10"]
    assert lines[-1] == f"table · {tmp_path}/results.csv"
    assert "0.00123456" in (tmp_path / "results.csv").read_text()
    assert ESCAPE not in result.stdout


def test_a_sweep_with_a_failing_job_still_compares_the_others(tmp_path: Path) -> None:
    short = ("optimizer.steps=1", "trainer.val_every_steps=1", "callbacks.panels.images=0")
    result = run_python("train.py", "-m", *SMALL, *short, "loss.samples=64,100000", f"hydra.sweep.dir={tmp_path}")
    assert result.returncode != 0
    assert "loss.samples=100000" in result.stderr
    assert result.stdout.splitlines()[-1] == f"table · {tmp_path}/results.csv"
    assert "loss.samples" in (tmp_path / "1/train.log").read_text(encoding="utf-8")


def test_an_evaluation(finished: tuple[Path, str, str], tmp_path: Path) -> None:
    checkpoint = finished[0] / "checkpoints/best.ckpt"
    result = run_python("evaluate.py", f"ckpt={checkpoint}", "strategy=cpu", f"hydra.run.dir={tmp_path}/out")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"run folder · {tmp_path}/out"
    assert lines[1] == f"checkpoint {checkpoint} on shapes"
    assert re.fullmatch(rf"PQ \d+\.\d\d · {re.escape(str(tmp_path))}/out/metrics\.json", lines[-1])
    assert (tmp_path / "out/evaluate.log").read_text(encoding="utf-8") == result.stdout
    assert result.stderr == ""
    assert ESCAPE not in result.stdout


def test_a_prediction(finished: tuple[Path, str, str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a [x].png", "b.png"):
        Image.new("RGB", (70, 50)).save(tmp_path / "photos" / name)
    (tmp_path / "photos/c [bold].png").write_text("no picture")
    checkpoint, out = finished[0] / "checkpoints/best.ckpt", tmp_path / "out"
    result = run_python(
        "scripts/predict.py", f"ckpt={checkpoint}", f"input={tmp_path}/photos", f"output={out}", "device=cpu"
    )
    assert result.returncode == 3
    lines = result.stdout.splitlines()
    assert lines[0] == f"results · {out}"
    assert f"2 new, 0 already there, 1 unreadable · {out}" in lines
    assert result.stderr.startswith(f"skipped: {tmp_path}/photos/c [bold].png")
    assert len(result.stderr.splitlines()) == 1
    assert ESCAPE not in result.stdout + result.stderr

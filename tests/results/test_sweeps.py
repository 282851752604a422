"""Sweeps: read back, compared over seeds, plotted; and the attention ablation really run, in small."""

from __future__ import annotations

import io
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from conftest import ROOT, SMALL_RUN, run_python
from kmax.results.sweeps import comparison, comparison_table, curves, read_runs, table

plot_sweep = runpy.run_path(str(ROOT / "scripts/plot_sweep.py"))["main"]


def write_run(folder: Path, overrides: list[str], values: dict[int, float]) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text("".join(f"- {o}\n" for o in overrides) or "[]\n")
    rows = [f"{step},,{value}" for step, value in values.items()]
    (folder / "metrics.csv").write_text("\n".join(["step,train/loss,val/pq", "0,3.5,", *rows]) + "\n")


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for number, (attention, seed) in enumerate((a, s) for a in ("kmeans", "softmax") for s in (1, 2, 3)):
        gain = 2.0 if attention == "kmeans" else 1.0
        values = {9: gain * seed, 19: gain * (10 + seed)}
        write_run(tmp_path / str(number), ["sweep=attention", f"model.attention={attention}", f"seed={seed}"], values)
    return tmp_path


def test_settings_are_compared_over_seeds(sweep: Path) -> None:
    kmeans, softmax = curves(read_runs(sweep))
    assert (kmeans.name, kmeans.runs) == ("model.attention=kmeans", 3)
    np.testing.assert_array_equal(kmeans.steps, [9, 19])
    np.testing.assert_allclose(kmeans.mean, [4, 24])
    np.testing.assert_allclose(softmax.mean, [2, 12])
    np.testing.assert_allclose(softmax.std, [1, 1])
    lines = table([softmax, kmeans]).splitlines()
    assert lines[2] == "| model.attention=kmeans | 3 | 20 | 24.00 ± 2.00 |"
    assert lines[3] == "| model.attention=softmax | 3 | 20 | 12.00 ± 1.00 |"


def test_the_validation_after_training_is_left_out(sweep: Path) -> None:
    """Version 0.1 measured the best checkpoint again and called it the last step."""
    folder = sweep / "0" / "again"
    write_run(folder, ["seed=1"], {9: 1.0, 19: 5.0, 29: 4.0, 30: 5.0})
    (folder / ".hydra/config.yaml").write_text("optimizer:\n  steps: 30\n")
    (run,) = read_runs(folder)
    np.testing.assert_array_equal(run.steps, [9, 19, 29])
    np.testing.assert_array_equal(run.values, [1, 5, 4])


def test_the_last_value_is_the_last(tmp_path: Path) -> None:
    """Of a run that validates after every step, too."""
    write_run(tmp_path / "0", ["seed=1"], {0: 1.0, 1: 9.0, 2: 3.0})
    (tmp_path / "0/.hydra/config.yaml").write_text("optimizer:\n  steps: 3\n")
    (row,) = comparison(read_runs(tmp_path), "val/pq")
    assert (row["last val/pq"], row["steps"], row["best val/pq"], row["at step"]) == ("3.0", "3", "9.0", "2")


ODD_TABLES = {
    "cut off": b"step,val/pq\n1,2.5\n2,",
    "other text": b"step,val/pq\n1,2.5\nhello,world\n2,none\n",
    "more cells": b"step,val/pq\n1,2.5,7,8\n",
    "not UTF-8": b"step,val/pq,\xff\n1,2.5,\xfe\n",
    "zeros": b"step,val/pq\n1,2.5\n\0\0\0\0\n",
    "nan": b"step,val/pq\n1,2.5\n2,nan\n",
    "steps with a point": b"step,val/pq\n1.0,2.5\n",
}


@pytest.mark.parametrize("content", ODD_TABLES.values(), ids=ODD_TABLES)
def test_what_can_be_read_of_an_odd_table_is_read(tmp_path: Path, content: bytes) -> None:
    write_run(tmp_path / "0", ["seed=1"], {})
    (tmp_path / "0/metrics.csv").write_bytes(content)
    (run,) = read_runs(tmp_path)
    assert (run.steps.tolist(), run.values.tolist()) == ([1], [2.5])


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PK\x03\x04\xff\xfe", b"a,b\n1,2\n"])
def test_a_file_that_is_no_table_is_a_run_without_numbers(tmp_path: Path, content: bytes) -> None:
    write_run(tmp_path / "0", ["seed=1"], {1: 2.5})
    write_run(tmp_path / "1", ["seed=2"], {})
    (tmp_path / "1/metrics.csv").write_bytes(content)
    assert [run.folder.name for run in read_runs(tmp_path)] == ["0"]


def test_numbers_have_four_digits_and_names_are_no_markup(tmp_path: Path) -> None:
    overrides = ["optimizer.lr=0.00123456789", "name=[/x]|$y$", "seed=12345"]
    write_run(tmp_path / "0", overrides, {1: 41.23456})
    write_run(tmp_path / "1", ["seed=2"], {1: 1.0})
    file = io.StringIO()
    console = Console(width=200, file=file)
    console.print(comparison_table(comparison(read_runs(tmp_path), "val/pq")))
    shown = file.getvalue()
    for cell in ("0.001235", "[/x]|$y$", "12345", "41.23"):
        assert f" {cell} " in shown
    assert "0.0012345" not in shown


def test_only_steps_that_all_seeds_share_are_compared(sweep: Path) -> None:
    write_run(sweep / "10", ["sweep=attention", "model.attention=kmeans", "seed=4"], {9: 0.0})
    kmeans = curves(read_runs(sweep))[0]
    assert kmeans.runs == 4
    np.testing.assert_array_equal(kmeans.steps, [9])
    np.testing.assert_allclose(kmeans.mean, [3])


def test_a_plot_has_a_line_per_setting(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    plot_sweep([str(sweep), "--title", "attention"])
    assert "| model.attention=kmeans | 3 |" in capsys.readouterr().out
    pixels = np.asarray(Image.open(sweep / "curves.png").convert("RGB")).reshape(-1, 3)
    for color in ((31, 119, 180), (255, 127, 14)):
        assert (pixels == color).all(1).sum() > 300
    assert [f.name for f in sweep.iterdir() if "tmp" in f.name] == []


def test_what_is_missing_is_named(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has logged val/miou; logged were step, train/loss, val/pq"):
        read_runs(sweep, "val/miou")
    with pytest.raises(SystemExit, match="There is no run with a metrics"):
        plot_sweep([str(tmp_path / "nowhere")])


@pytest.mark.long
def test_the_attention_ablation_is_one_command(tmp_path: Path) -> None:
    small = [o for o in SMALL_RUN if not o.startswith("dataset.val.length")]
    small += ["dataset.val.length=1", "optimizer.steps=3", "trainer.val_every_steps=3", f"hydra.sweep.dir={tmp_path}"]
    result = run_python("train.py", "-m", "sweep=attention", "seed=1", *small)
    assert result.returncode == 0, result.stderr[-3000:]
    found = curves(read_runs(tmp_path))
    assert [(c.name, c.runs) for c in found] == [("model.attention=kmeans", 1), ("model.attention=softmax", 1)]
    kmeans, softmax = curves(read_runs(tmp_path, "train/loss"))
    assert kmeans.mean[0] == softmax.mean[0]  # the same weights and data; what is gathered still counts nothing
    assert kmeans.mean[-1] != softmax.mean[-1]


def test_costs_stand_beside_what_they_bring(tmp_path: Path) -> None:
    """Mean over seeds; a setting without them, from an older run, has none."""
    for number, (attention, seconds) in enumerate((("kmeans", 0.5), ("kmeans", 0.7), ("softmax", None))):
        folder = tmp_path / str(number)
        write_run(folder, [f"model.attention={attention}", f"seed={number}"], {9: 10.0})
        if seconds is not None:
            costs = f"step,val/pq,cost/parameters,cost/step_seconds\n9,10.0,,\n9,,4200000,9\n9,,4200000,{seconds}\n"
            (folder / "metrics.csv").write_text(costs)
    header, _, *rows = table(curves(read_runs(tmp_path))).splitlines()
    assert header == "| setting | runs | parameters | s per step | step | val/pq |"
    assert rows[0].startswith("| model.attention=kmeans | 2 | 4.2 M | 0.6 | 10 | 10.00")
    assert rows[1] == "| model.attention=softmax | 1 |  |  | 10 | 10.00 |"

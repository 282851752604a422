"""Own annotations as a new user would take them: prepare → check → train → evaluate → predict."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import foreign_formats as foreign
from conftest import ROOT
from foreign_formats import Truth

FORMATS: dict[str, Callable[[Path, list[Truth]], object]] = {
    "labelme": foreign.labelme,
    "coco": foreign.coco_instances,
    "semantic": foreign.semantic,
    "cvat": foreign.cvat,
    "yolo": foreign.yolo,
    "voc": foreign.voc,
    "mapillary": foreign.mapillary,
    "coco_panoptic": foreign.coco_panoptic,
}
TRAINING = (
    "experiment=null",
    "debug=fast",
    "dataset=coco_format",
    "dataset.size=[97,97]",
    "dataset.batch_size=2",
    "loss.samples=64",
    "strategy=cpu",
    "trainer.enable_progress_bar=false",
)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a script with a command line, in this process; its exit status."""

    def call(script: str, *arguments: str) -> int:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        monkeypatch.chdir(ROOT)
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return call


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_from_annotations_to_predictions(
    name: str, tmp_path: Path, command: Callable[..., int], sample_data: Path
) -> None:
    truths = foreign.real(sample_data, 8)
    FORMATS[name](tmp_path / "in", truths[:6])
    root, run = tmp_path / "mydata", tmp_path / "run"
    arguments = ("--root", str(root), "--workers", "0")
    assert command("scripts/prepare_own.py", str(tmp_path / "in"), *arguments, "--val", "0.3", "--preview", "4") == 0
    assert command("scripts/prepare_own.py", *arguments, "--check") == 0
    assert (root / "preview.png").is_file()
    assert command("train.py", *TRAINING, f"dataset.root={root}", f"hydra.run.dir={run}") == 0
    best = run / "checkpoints" / "best.ckpt"
    assert command("evaluate.py", f"ckpt={best}", "strategy=cpu", f"hydra.run.dir={run}/evaluation") == 0
    assert 0 <= json.loads((run / "evaluation/metrics.json").read_text())["all"]["pq"] <= 100
    foreign.pictures(tmp_path / "new", truths[6:])
    thresholds = ("inference.thing_threshold=0", "inference.stuff_threshold=0")
    output = tmp_path / "predicted"
    assert (
        command("scripts/predict.py", f"ckpt={best}", f"input={tmp_path / 'new'}", f"output={output}", *thresholds) == 0
    )
    assert len(list(output.rglob("*.png"))) >= 2

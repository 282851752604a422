"""A real run, as a user would type it: train → evaluate → predict, in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import SMALL_RUN, run_python


def test_training_leaves_everything_behind(tiny_run: Path) -> None:
    assert {f.name for f in (tiny_run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert len(list((tiny_run / "panels").glob("*.png"))) == 4
    assert "val/pq" in (tiny_run / "metrics.csv").read_text()
    checkpoint = torch.load(tiny_run / "checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["kmax_config"]["dataset"]["name"] == "shapes"


def test_evaluation_needs_nothing_but_the_checkpoint(tiny_run: Path, tmp_path: Path) -> None:
    arguments = [f"ckpt={tiny_run / 'checkpoints/best.ckpt'}", "save_predictions=true", f"hydra.run.dir={tmp_path}"]
    result = run_python("evaluate.py", *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= metrics["all"]["pq"] <= 100
    predictions = json.loads((tmp_path / "predictions/panoptic.json").read_text())
    assert len(predictions["annotations"]) == 4
    for entry in predictions["annotations"]:
        rgb = np.asarray(Image.open(tmp_path / "predictions/panoptic" / entry["file_name"])).astype(np.int64)
        ids = rgb @ [1, 256, 65536]
        assert set(np.unique(ids)) - {0} == {segment["id"] for segment in entry["segments_info"]}


def test_a_predictor_needs_nothing_but_the_checkpoint(tiny_run: Path) -> None:
    import kmax

    predictor = kmax.Predictor.from_checkpoint(tiny_run / "checkpoints/best.ckpt", device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (50, 81, 3), dtype=np.uint8)
    result = predictor(image)
    assert result.segment_map.shape == (50, 81)
    assert set(result.segment_map.unique().tolist()) - {0} == {segment.id for segment in result.segments}
    assert predictor(np.zeros((1, 1, 3), np.uint8)).segment_map.shape == (1, 1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            [
                "train.py",
                "experiment=null",
                "dataset=coco",
                "optimizer.steps=1",
                "trainer.val_every_steps=1",
                "dataset.root=/nowhere",
            ],
            "/nowhere",
        ),
        (["train.py", "experiment=no_such"], "no_such"),
        (["evaluate.py", "ckpt=/nowhere.ckpt"], "There is no checkpoint /nowhere.ckpt"),
    ],
)
def test_bad_input_gets_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    result = run_python(*arguments, f"hydra.run.dir={tmp_path}")
    assert result.returncode != 0
    assert sentence in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


def test_weights_of_another_model_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    checkpoint = tiny_run / "checkpoints/best.ckpt"
    result = run_python(
        "train.py", *SMALL_RUN, f"init_from={checkpoint}", "model.num_queries=7", f"hydra.run.dir={tmp_path}"
    )
    assert result.returncode != 0
    assert "do not fit this model" in result.stderr
    assert "Traceback" not in result.stderr

"""The zip for evaluation servers: unpacked, it is what the official evaluation reads."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import run_python
from kmax.config.compose import compose_config
from kmax.config.options import EvaluateOptions, PredictOptions
from kmax.data import ShapesDataset
from kmax.options import OptionError
from kmax.results.submission import write_submission
from scripts.predict import predict

LOW = [f"inference.{n}" for n in ("thing_threshold=0", "stuff_threshold=0", "overlap=0", "pixel_threshold=0.02")]


def check(file: Path, count: int) -> list[dict]:
    """Whether every id of every PNG is described once and occurs; the entries."""
    stem = file.stem
    with zipfile.ZipFile(file) as archive:
        content = json.loads(archive.read(f"{stem}.json"))
        assert len(content["annotations"]) == count
        pictures = {f"{stem}/{entry['file_name']}" for entry in content["annotations"]}
        assert set(archive.namelist()) == {f"{stem}.json", *pictures}
        for entry in content["annotations"]:
            assert "/" not in entry["file_name"]
            image = Image.open(io.BytesIO(archive.read(f"{stem}/{entry['file_name']}")))
            ids = np.asarray(image.convert("RGB")).astype(int) @ [1, 256, 65536]
            assert sorted({*ids.ravel().tolist()} - {0}) == sorted(s["id"] for s in entry["segments_info"])
    return list(content["annotations"])


def test_predictions_of_named_images(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for n in (139, 285):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(ShapesDataset(1, seed=n)[0].image).save(tmp_path / f"in/{n:012}.jpg")
    arguments = [f"ckpt={tiny_checkpoint}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "device=cpu"]
    options = ["outputs=[panoptic]", "submission=test-dev2017_kmax"]
    assert predict(compose_config(None, *arguments, *LOW, *options, root="predict")) == 0
    entries = check(tmp_path / "out/panoptic_test-dev2017_kmax_results.zip", 2)
    assert [(e["image_id"], e["file_name"]) for e in entries] == [(139, "000000000139.png"), (285, "000000000285.png")]
    assert {"id", "category_id"} == {key for e in entries for s in e["segments_info"] for key in s}
    assert any(e["segments_info"] for e in entries)


@pytest.mark.long
def test_an_evaluation_writes_one_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    options = (*LOW, "save_predictions=true", "submission=val_tiny", "dataset.val.length=3", "strategy.num_workers=0")
    result = run_python("evaluate.py", f"ckpt={tiny_checkpoint}", f"hydra.run.dir={tmp_path}", *options)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "panoptic_val_tiny_results.zip" in result.stdout
    check(tmp_path / "panoptic_val_tiny_results.zip", 3)


def test_ids_of_cityscapes_have_no_kind_and_equal_names_stay_apart(tmp_path: Path) -> None:
    names = ["berlin/berlin_000000_000019_leftImg8bit", "a/x", "b/x"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(tmp_path / "in" / f"{name}.png")
    annotations = [{"image_id": n, "file_name": f"{n}.png", "segments_info": []} for n in names]
    entries = check(write_submission(annotations, tmp_path / "in", "test_kmax", tmp_path), 3)
    assert entries[0]["image_id"] == "berlin_000000_000019"
    assert len({e["file_name"] for e in entries}) == 3


def test_mistakes_are_named() -> None:
    with pytest.raises(OptionError, match=r"submission=a/b must be letters"):
        PredictOptions(ckpt="x", input="y", submission="a/b")
    with pytest.raises(OptionError, match="it needs panoptic among outputs"):
        PredictOptions(ckpt="x", input="y", outputs=["overlay"], submission="a")
    with pytest.raises(OptionError, match="it needs save_predictions=true"):
        EvaluateOptions(ckpt="x", submission="a")

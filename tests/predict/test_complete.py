"""One file from picture to segments: what it returns is what the Predictor returns, at any size of the picture."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ROOT
from kmax import Predictor
from kmax.config.compose import compose_config
from kmax.config.options import ExportOptions
from kmax.config.trained import TrainedModel
from kmax.data import ShapesDataset
from kmax.options import OptionError
from kmax.predict import complete
from kmax.predict.serving import Description

SIZES = [(129, 129), (200, 90), (65, 240), (129, 172), (2, 40), (31, 31)]
PICTURES = [ShapesDataset(4, seed=4, min_size=80, max_size=240)[i].image for i in range(4)]


def test_the_traceable_model_equals_the_predictor(module: TrainedModel) -> None:
    model = complete.CompleteModel(module, (129, 129)).eval()
    rng = np.random.default_rng(0)
    pictures = [*PICTURES, *(rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES[4:])]

    def run(image: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [tensor.numpy() for tensor in model(torch.from_numpy(image))]

    parity = complete.compare(Predictor(module, (129, 129)), run, pictures)
    assert (parity.images, parity.beyond) == (6, 0)
    assert parity.differing_pixels <= 6


@pytest.mark.long
@pytest.mark.parametrize("format", complete.FORMATS)
def test_a_file_takes_any_size_and_equals_the_predictor(
    format: str,
    module: TrainedModel,
    tmp_path: Path,
) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    path = tmp_path / f"model.{format}"
    parity = complete.export_complete(module, path, format, (129, 129), PICTURES)
    assert (parity.images, parity.beyond) == (4, 0)
    assert parity.identical >= 3
    run = complete.load(path, format)
    found = 0
    for size in SIZES:
        image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        segment_map, ids, labels, scores = run(image)
        assert segment_map.shape == size
        assert len(ids) == len(labels) == len(scores)
        assert {*np.unique(segment_map).tolist()} - {0} == {*ids.tolist()}
        found += len(ids)
    assert found > 0
    if format == "onnx":
        import onnx

        loaded = onnx.load(path)
        onnx.checker.check_model(loaded)
        about = Description.from_json({p.key: p.value for p in loaded.metadata_props}["kmax"])
        assert about.postprocessed
        assert about.names == module.categories.names
    assert [f.name for f in tmp_path.iterdir()] == [path.name]


def test_mistakes_are_named(module: TrainedModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not for format=aoti"):
        complete.export_complete(module, tmp_path / "x", "aoti", (65, 65), [])
    with pytest.raises(ValueError, match=r"size=\[1, 65\] is too small"):
        complete.export_complete(module, tmp_path / "x", "onnx", (1, 65), [])
    with pytest.raises(OptionError, match="one image at a time: leave out batch=4"):
        ExportOptions(ckpt="x", postprocess=True, batch=4)
    with pytest.raises(OptionError, match="for format=onnx and format=pt2"):
        ExportOptions(ckpt="x", postprocess=True, format="aoti")
    assert not list(tmp_path.iterdir())


def test_a_deviation_is_an_error_and_leaves_nothing(
    module: TrainedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoiled(path: Path, format: str) -> complete.Run:
        nothing = np.zeros(0, np.int64)
        return lambda image: [np.ones(image.shape[:2], np.int32), nothing, nothing, nothing]

    monkeypatch.setattr(torch.export, "export", lambda *_, **__: None)
    monkeypatch.setattr(complete, "write_pt2", lambda *_: None)
    monkeypatch.setattr(complete, "load", spoiled)
    with pytest.raises(ValueError, match="other segments than eager in 4 of 4 images"):
        complete.export_complete(module, tmp_path / "x.pt2", "pt2", (129, 129), PICTURES)
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_the_script_says_how_equal_it_is(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = runpy.run_path(str(ROOT / "scripts/export.py"))
    checkpoint = shutil.copy(tiny_checkpoint, tmp_path / "best.ckpt")
    options = [f"ckpt={checkpoint}", "format=pt2", "postprocess=true", "size=[65,65]", "count=2"]
    assert script["export"](compose_config(None, *options, root="export")) == tmp_path / "best.pt2"
    assert "identical to the Predictor on 2 of 2 images (0 pixels differ)" in capsys.readouterr().out

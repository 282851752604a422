"""Export: outputs equal eager, panoptic maps are identical, mistakes are named and leave nothing behind."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import ROOT, run_python
from kmax import Predictor
from kmax.config.compose import compose_config
from kmax.config.trained import TrainedModel
from kmax.data import ShapesDataset
from kmax.predict import export, serving
from kmax.predict.serving import Description

script = runpy.run_path(str(ROOT / "scripts/export.py"))
PICTURES = [ShapesDataset(12, seed=4)[i].image for i in range(12)]


@pytest.fixture(scope="module")
def onnx_file(module: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    parity = export.export_model(module, path, "onnx", (129, 129), "dynamic", PICTURES)
    assert parity.deviation < 1e-4
    assert parity.images == 12
    assert parity.identical >= 10
    assert parity.differing_pixels <= 4, "of flat masks, a pixel may lie at the threshold"
    return path


@pytest.mark.long
def test_onnx_takes_any_batch_and_equals_eager(onnx_file: Path, module: TrainedModel) -> None:
    run, model = export.load_onnx(onnx_file), export.ExportableModel(module)
    for pictures in (PICTURES[:1], PICTURES[:3]):
        inputs = serving.prepare(pictures, (129, 129))
        with torch.no_grad():
            eager = model(*map(torch.as_tensor, inputs))
        for ours, theirs in zip(eager, run(*inputs), strict=True):
            assert len(theirs) == len(pictures)
            np.testing.assert_allclose(theirs, ours, atol=1e-4 * float(ours.abs().max()))


@pytest.mark.long
def test_an_onnx_file_says_what_it_is(onnx_file: Path, module: TrainedModel) -> None:
    import onnx

    model = onnx.load(onnx_file)
    onnx.checker.check_model(model)
    assert [i.name for i in model.graph.input] == ["images", "content"]
    text = {p.key: p.value for p in model.metadata_props}["kmax"]
    description = Description.from_json(text)
    assert description == export.describe(module, (129, 129))
    assert description.names == module.categories.names
    assert [f.name for f in onnx_file.parent.iterdir()] == ["model.onnx"]


@pytest.mark.long
def test_maps_served_by_the_example_equal_the_predictor(onnx_file: Path, module: TrainedModel, tmp_path: Path) -> None:
    predictor = Predictor(module, (129, 129))
    for i, picture in enumerate(PICTURES[:2]):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    files = [str(tmp_path / f"{i}.png") for i in range(2)]
    result = run_python("scripts/serve_onnx.py", str(onnx_file), *files)
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    for i, line in enumerate(lines):
        expected = predictor(PICTURES[i])
        assert len(expected.segments) > 0
        assert [s["label"] for s in line["segments"]] == [module.categories.names[s.label] for s in expected.segments]
        areas = [int((expected.segment_map == s.id).sum()) for s in expected.segments]
        assert [s["area"] for s in line["segments"]] == pytest.approx(areas, abs=2)


@pytest.mark.long
def test_pt2_equals_eager_at_a_size_of_its_own(module: TrainedModel, tmp_path: Path) -> None:
    parity = export.export_model(module, tmp_path / "model.pt2", "pt2", (65, 97), 2, PICTURES[:3])
    assert parity.deviation < 1e-4
    assert parity.identical == 3
    extra = {export.METADATA: ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert Description.from_json(extra[export.METADATA]).size == (65, 97)


@pytest.mark.skipif(not os.environ.get("KMAX_TEST_AOTI"), reason="compiles for minutes: set KMAX_TEST_AOTI=1")
def test_aoti_equals_eager(module: TrainedModel, tmp_path: Path) -> None:
    parity = export.export_model(module, tmp_path / "model.aoti.pt2", "aoti", (129, 129), "dynamic", PICTURES)
    assert parity.deviation < 1e-4
    assert parity.identical == 12


@pytest.mark.long
def test_a_deviation_is_an_error_and_leaves_what_was_there(
    module: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_spoiled(path: Path) -> export.Run:
        assert path.read_text() == "the file of today"
        model = export._with_numpy(export.ExportableModel(module))
        return lambda *inputs: tuple(1.1 * x for x in model(*inputs))  # type: ignore[return-value]

    def load_far_off_once(path: Path) -> export.Run:
        exact, calls = export._with_numpy(export.ExportableModel(module)), iter(range(100))
        return lambda *inputs: tuple(x * (1.1 if next(calls) == 3 else 1) for x in exact(*inputs))  # type: ignore[return-value]

    monkeypatch.setattr(export, "_program", lambda *arguments: None)
    (tmp_path / "model.pt2").write_text("the file of yesterday")
    for load, pictures in ((load_spoiled, 1), (load_far_off_once, 12)):
        monkeypatch.setattr(
            export,
            "_backend",
            lambda format, load=load: (lambda _, __, path: path.write_text("the file of today"), load),
        )
        with pytest.raises(ValueError, match=rf"deviates from eager by up to 1\.0e-01, in 1 of {pictures} images"):
            export.export_model(module, tmp_path / "model.pt2", "pt2", (65, 65), 1, PICTURES[:pictures])
    assert [f.name for f in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_text() == "the file of yesterday"


def test_one_picture_in_ten_may_have_a_tie(module: TrainedModel) -> None:
    model, calls = export.ExportableModel(module), iter(range(100))
    exact = export._with_numpy(model)

    def run(images: np.ndarray, content: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes, masks = exact(images, content)
        return classes * (1.001 if next(calls) == 3 else 1.0), masks

    parity = export.compare(model, run, module, (65, 65), 1, PICTURES[:10], 1e-4)
    assert (parity.images, parity.beyond) == (10, 1)
    assert parity.deviation == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize(
    ("format", "size", "batch", "named"),
    [
        ("tflite", (65, 65), 1, "format=tflite is unknown: choose one of onnx, pt2, aoti"),
        ("pt2", (65, 65), "many", "batch=many is unknown"),
        ("pt2", (65, 65), 0, "batch=0 is unknown"),
        ("pt2", (1, 65), 1, r"size=\[1, 65\] is too small"),
        ("pt2", (65, 32 * 255 + 1), 1, "256 cells exceeds the 255"),
    ],
)
def test_mistakes_are_named(
    module: TrainedModel, tmp_path: Path, format: str, size: tuple[int, int], batch: int | str, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        export.export_model(module, tmp_path / "model", format, size, batch, PICTURES[:1])
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_or_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"pip install 'kmax-deeplab\[export\]'"):
        export._backend("onnx")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler"):
        export._backend("aoti")


@pytest.mark.long
def test_the_script_exports_next_to_the_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = shutil.copy(tiny_checkpoint, tmp_path / "best.ckpt")
    for i in range(3):
        Image.fromarray(PICTURES[i]).save(tmp_path / f"{i}.png")
    options = [f"ckpt={checkpoint}", "format=pt2", "batch=1", "size=[65,65]", f"pictures={tmp_path}", "count=2"]
    path = script["export"](compose_config(None, *options, root="export"))
    assert path == tmp_path / "best.pt2"
    out = capsys.readouterr().out
    assert "parity with eager on 2 images" in out
    assert "identical panoptic maps 2/2 (0 pixels differ)" in out


@pytest.mark.long
def test_the_script_explains_mistakes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def error(*arguments: str) -> str:
        result = run_python("scripts/export.py", *arguments)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        return result.stderr

    assert "error: There is no checkpoint nowhere.ckpt" in error("ckpt=nowhere.ckpt")
    read: Callable[..., object] = script["read_images"]
    with pytest.raises(ValueError, match=r"There are 0 images in .*: set count=0 or fewer"):
        read(str(tmp_path), 3)
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read"):
        read(str(tmp_path), 1)

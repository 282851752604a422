"""scripts/compare_runtimes.py on a file without a network: what it runs, quantizes and measures."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tiny_onnx
from kmax.inference.options import Thresholds
from kmax.predict import serving
from kmax.structures import Sample, Segment
from scripts import compare_runtimes as script


@pytest.mark.long
def test_int8_and_openvino_see_what_onnxruntime_sees(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    exact = tiny_onnx.write(tmp_path / "fp32.onnx")
    pictures = [tiny_onnx.picture(seed) for seed in range(6)]
    inputs = [serving.prepare([picture], tiny_onnx.SIZE) for picture in pictures]
    script.quantize(exact, tmp_path / "int8.onnx", iter(inputs))
    assert {f.name for f in tmp_path.iterdir()} == {"fp32.onnx", "int8.onnx"}
    assert b"QuantizeLinear" in (tmp_path / "int8.onnx").read_bytes()
    runs: dict[str, script.Run] = {
        "fp32": script.onnx_run(exact, 1),
        "int8": script.onnx_run(tmp_path / "int8.onnx", 1),
    }
    with contextlib.suppress(ModuleNotFoundError):
        runs["openvino"] = script.openvino_run(exact, 1)
    masks = {name: np.array(run(*inputs[0])[1]) for name, run in runs.items()}
    assert 0 < np.abs(masks["int8"] - masks["fp32"]).max() < 0.02 * masks["fp32"].max(), "rounded to 8 bits"
    for name in runs.keys() - {"fp32", "int8"}:
        np.testing.assert_allclose(masks[name], masks["fp32"], atol=1e-4)
    measured = script.measure(trained(), runs, iter([truth(picture) for picture in pictures]))
    assert measured["fp32"][0] > 95
    assert all(abs(quality - measured["fp32"][0]) < 2 and time > 0 for quality, time in measured.values())


def trained() -> Any:
    """What `measure` asks of a trained model."""
    about = tiny_onnx.DESCRIPTION
    return SimpleNamespace(
        options=SimpleNamespace(dataset=SimpleNamespace(size=about.size)),
        categories=SimpleNamespace(is_thing=about.is_thing),
        inference=Thresholds(**about.thresholds),
    )


def truth(picture: np.ndarray) -> Sample:
    """The colors of a picture as its ground truth."""
    segment_map = picture.argmax(-1).astype(np.int32) + 1
    segments = tuple(Segment(int(n), int(n) - 1) for n in np.unique(segment_map))
    return Sample(picture, segment_map, segments, 0)

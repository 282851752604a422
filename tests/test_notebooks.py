"""Every notebook runs from top to bottom on a checkpoint that a test trained, and is kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [
    "01_data_and_augmentation",
    "02_k_means_attention",
    "03_errors_and_metrics",
    "04_sweep_analysis",
    "05_own_data",
]


def test_all_are_here() -> None:
    assert [file.stem for file in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_outputs_are_stripped(file: Path) -> None:
    for cell in json.loads(file.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "run nbstripout (pre-commit does)"
            assert cell["execution_count"] is None, "run nbstripout (pre-commit does)"


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebook_runs(file: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMAX_CKPT", str(tiny_run / "checkpoints/best.ckpt"))
    monkeypatch.setenv("KMAX_SWEEP", str(tiny_run))
    monkeypatch.setenv("KMAX_STEPS", "2")
    kinds = {kind for output in outputs_of(file, monkeypatch) for kind in output.get("data", {})}
    assert "image/png" in kinds


def outputs_of(file: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The outputs of a notebook that is run."""
    nbformat, nbclient, *_ = map(pytest.importorskip, ("nbformat", "nbclient", "ipykernel", "matplotlib"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(file, as_version=4)
    place = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(notebook, timeout=500, kernel_name="python3", resources=place).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.long
def test_without_a_sweep_one_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMAX_SWEEP", str(tmp_path / "sweep"))
    monkeypatch.setenv("KMAX_STEPS", "2")
    outputs = outputs_of(NOTEBOOKS[NAMES.index("04_sweep_analysis")], monkeypatch)
    text = "".join(output.get("text", "") for output in outputs)
    assert "sweep · 4 runs" in text
    assert text.count("'optimizer.lr': '0.003'") == 2 or text.count("3e-3") >= 2


@pytest.mark.long
@pytest.mark.parametrize("data", ["none", "sample"])
def test_data_are_cocos_where_it_is(data: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if (ROOT / "data/coco").is_dir():
        pytest.skip("this checkout has COCO, which comes first")
    folder = "/nowhere" if data == "none" else str(request.getfixturevalue("sample_data"))
    monkeypatch.setenv("KMAX_SAMPLE_DATA", folder)
    outputs = outputs_of(NOTEBOOKS[0], monkeypatch)
    text = "".join(output.get("text", "") for output in outputs)
    assert ("of shapes" if data == "none" else "of coco") in text

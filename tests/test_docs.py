"""The documentation builds without a warning, its tables hold every option, and the wheel carries what it must."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path

import pytest

from conftest import ROOT
from kmax.model.options import ModelOptions


def run(*command: str, cwd: Path = ROOT, **env: str) -> str:
    """Output of a command that must succeed."""
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout + result.stderr


def test_the_documentation_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    output = run(sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path), PYTHONPATH=str(ROOT))
    assert "WARNING" not in output
    options = (tmp_path / "configuration/index.html").read_text()
    for field in fields(ModelOptions):
        assert f"model.{field.name}" in options
    api = (tmp_path / "api/index.html").read_text()
    assert "Panoptic segmentation of one image." in api  # a docstring, rendered
    assert "images/kmeans_view.png" in (tmp_path / "concepts/index.html").read_text()
    assert not (tmp_path / "hooks.py").exists()


def test_a_wheel_builds_models_without_the_checkout(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    run(sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--quiet",
        "--wheel-dir", str(tmp_path))  # fmt: skip
    (wheel,) = tmp_path.glob("kmax-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "kmax/conf/experiment/coco_resnet50.yaml" in names
    assert "kmax/categories/coco.json" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"kmax"}
    code = "import kmax; m = kmax.build_model('coco_resnet50'); print(kmax.__file__, len(m.state_dict()))"
    place, count = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site")).split()[-2:]
    assert Path(place) == tmp_path / "site/kmax/__init__.py"
    assert int(count) > 500

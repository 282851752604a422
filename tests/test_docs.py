"""The documentation builds without a warning, and its tables hold every option."""

from __future__ import annotations

import os
import subprocess
import sys
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


@pytest.mark.long
def test_the_documentation_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    output = run(sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path), PYTHONPATH=str(ROOT))
    assert "WARNING" not in output
    options = (tmp_path / "configuration/index.html").read_text()
    for field in fields(ModelOptions):
        assert f"model.{field.name}" in options
    api = (tmp_path / "api/index.html").read_text()
    assert "Panoptic segmentation of one image" in api  # a docstring, rendered
    assert "images/kmeans_view.png" in (tmp_path / "concepts/index.html").read_text()
    assert not (tmp_path / "hooks.py").exists()

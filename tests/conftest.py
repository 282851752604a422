"""What many tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# The tests' tensors are small and several processes share the cores: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
SMALL_RUN = (
    "debug=fast",
    "trainer.limit_val_batches=null",
    "dataset.train.length=8",
    "dataset.val.length=4",
    "dataset.batch_size=2",
    "dataset.size=[129,129]",
    "strategy=cpu",
    "trainer.enable_progress_bar=false",
)
"""Overrides that make `train.py` end after two steps."""


def run_python(*arguments: str, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the project as a user would, in a process of its own at the top of the checkout."""
    command = [sys.executable, *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps on the built-in shapes."""
    folder = tmp_path_factory.mktemp("run")
    result = run_python("train.py", *SMALL_RUN, f"hydra.run.dir={folder}")
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_run: Path) -> Path:
    """The best checkpoint of `tiny_run`: a real one, of a model that has learnt next to nothing."""
    return tiny_run / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder with real sample data (`coco128`, `ade20k_sample`); without it the test is skipped."""
    folder = Path(os.environ.get("KMAX_SAMPLE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "coco128").is_dir():
        pytest.skip(f"no sample data in {folder}: set KMAX_SAMPLE_DATA")
    return folder

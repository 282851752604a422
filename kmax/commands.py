"""The commands that an installation provides: `kmax-train` is `python train.py`, and so on.

The programs are files at the top of the checkout. A wheel has the same files in the same layout in `kmax/programs`, so
each finds its configuration, and the processes that it starts again (the ranks of DDP, the jobs of a sweep) run that
file.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

DATASETS = ("coco", "cityscapes", "ade20k", "own")


def programs_dir() -> Path:
    """The folder of train.py, evaluate.py, conf and scripts: in an installed wheel, or the top of a checkout."""
    package = Path(__file__).resolve().parent
    return package / "programs" if (package / "programs").is_dir() else package.parent


def _run(program: str) -> None:
    runpy.run_path(str(programs_dir() / program), run_name="__main__")


def train() -> None:
    """Train a model."""
    _run("train.py")


def evaluate() -> None:
    """Evaluate a checkpoint on its dataset."""
    _run("evaluate.py")


def predict() -> None:
    """Segment images, folders, videos or a camera."""
    _run("scripts/predict.py")


def demo() -> None:
    """Try a checkpoint in the browser."""
    _run("scripts/demo.py")


def export() -> None:
    """Export a checkpoint to ONNX or torch.export."""
    _run("scripts/export.py")


def convert() -> None:
    """Translate published checkpoints into ours and back."""
    _run("scripts/convert_weights.py")


def prepare() -> None:
    """Make a downloaded dataset ready for training; the first argument says which."""
    dataset = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if dataset in ("-h", "--help"):
        print(f"usage: kmax-prepare {{{','.join(DATASETS)}}} [options]")
        print("Make a downloaded dataset ready for training; kmax-prepare DATASET --help lists the options.")
    elif dataset in DATASETS:
        del sys.argv[1]
        _run(f"scripts/prepare_{dataset}.py")
    else:
        sys.exit(f"error: There is no preparation of {dataset!r}: choose one of {', '.join(DATASETS)}.")

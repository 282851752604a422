"""How training is told of a prepared dataset; imports neither Hydra nor PyTorch, for a quick `--help`."""

from __future__ import annotations

from pathlib import Path

from kmax.console import override


def ready(what: object, dataset: str, root: Path) -> str:
    """The last line of a preparation: the options of `train.py` for the dataset in `root`."""
    return f"{what} is ready: train with dataset={dataset} {override('dataset.root', root)}"

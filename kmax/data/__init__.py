"""Datasets, augmentation and loaders."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmax.data.datasets import ADE20KPanoptic, CityscapesPanoptic, CocoPanoptic
    from kmax.data.shapes import ShapesDataset

__all__ = ["ADE20KPanoptic", "CityscapesPanoptic", "CocoPanoptic", "ShapesDataset"]


def __getattr__(name: str) -> Any:
    """The datasets under the names that configurations use (`_target_: kmax.data.CocoPanoptic`), imported when asked
    for: preparing data needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module 'kmax.data' has no attribute {name!r}")
    return getattr(import_module("kmax.data.shapes" if name == "ShapesDataset" else "kmax.data.datasets"), name)

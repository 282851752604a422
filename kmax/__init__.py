"""Train panoptic segmentation with k-means mask transformers (kMaX-DeepLab, arXiv 2207.04044)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmax.checkpoint.detectron2 import load_detectron2
    from kmax.config.build import build_model
    from kmax.predict.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "build_model", "load_detectron2"]

_HOMES = {
    "Predictor": "kmax.predict.predictor",
    "build_model": "kmax.config.build",
    "load_detectron2": "kmax.checkpoint.detectron2",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: `import kmax.structures` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'kmax' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

"""Foreign checkpoints made for tests: real in kind, small in size."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from kmax.checkpoint.detectron2 import to_detectron2
from kmax.model import KMaXDeepLab, build_backbone
from kmax.model.options import ModelOptions

SMALL: dict[str, Any] = {
    "num_queries": 12,
    "widths": [32, 16, 8, 8, 8],
    "blocks": [1, 2, 1, 1, 1],
    "stem_stage": True,
    "layers": [1, 1, 2],
    "dim": 32,
    "feature_dim": 16,
    "ffn_dim": 48,
    "semantic_head": "plain",
}
"""A Cityscapes model, narrow but for its backbone."""


def small_model(num_classes: int = 19, **options: Any) -> KMaXDeepLab:
    """A model of the Detectron2 family whose predictions differ from pixel to pixel."""
    torch.manual_seed(0)
    model = KMaXDeepLab(build_backbone("resnet50"), num_classes, ModelOptions(**{**SMALL, **options})).eval()
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def write_detectron2(path: Path, model: KMaXDeepLab, **more: Any) -> Path:
    """The model as a published file: tensors in a `.pth`, arrays in a `.pkl`."""
    state = to_detectron2(model.state_dict())
    if path.suffix == ".pth":
        torch.save({"model": state, "iteration": 149999, **more}, path)
    else:
        arrays = {name: value.numpy() for name, value in state.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "third_party", **more}))
    return path

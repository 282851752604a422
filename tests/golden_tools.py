"""Reading the recorded numbers in tests/golden, and models with the weights that they were recorded with."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kmax.checkpoint.detectron2 import load_detectron2
from kmax.model import KMaXDeepLab, build_backbone

GOLDEN = Path(__file__).parent / "golden"
_spec = importlib.util.spec_from_file_location("golden_recipe", GOLDEN / "recipe.py")
assert _spec is not None
assert _spec.loader is not None
recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recipe)

CITYSCAPES: dict[str, Any] = {"num_queries": 256, "stem_stage": True, "semantic_head": "plain"}
CONFIGURATIONS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "coco_r50": ("resnet50", 133, {}),
    "coco_convnext_tiny": ("convnext_tiny", 133, {}),
    "coco_convnext_small": ("convnext_small", 133, {}),
    "coco_convnext_base": ("convnext_base", 133, {}),
    "coco_convnext_large": ("convnext_large", 133, {}),
    "cityscapes_r50": ("resnet50", 19, CITYSCAPES),
    "cityscapes_convnext_large": ("convnext_large", 19, CITYSCAPES),
    "ade20k_r50": ("resnet50", 150, {}),
    "ade20k_convnext_large": ("convnext_large", 150, {}),
}


def load(name: str) -> Any:
    """The arrays of tests/golden/`name`.npz."""
    return np.load(GOLDEN / f"{name}.npz")


def entries(name: str) -> list[tuple[str, list[int]]]:
    """Names and shapes of a published checkpoint."""
    return json.loads((GOLDEN / "checkpoints" / f"{name}.json").read_text())


def model(name: str, device: str = "cpu", **options: Any) -> KMaXDeepLab:
    """The model of a published configuration, randomly initialised; on `meta` without memory."""
    backbone, num_classes, own = CONFIGURATIONS[name]
    with torch.device(device):
        return KMaXDeepLab(build_backbone(backbone), num_classes, **{**own, **options})


def seeded_model(name: str, **options: Any) -> KMaXDeepLab:
    """The model with the weights of the recorded run, imported as a published checkpoint; float64."""
    result = model(name, **options).double()
    load_detectron2(result, {key: recipe.seeded_tensor(key, shape) for key, shape in entries(name)})
    return result


def compare(actual: torch.Tensor, golden: Any, key: str, tolerance: float) -> None:
    """Assert that a tensor equals the recorded one, relative to the recorded one's largest value."""
    array = actual.detach().double().contiguous().numpy()
    assert array.shape == tuple(golden[f"{key}/shape"]), key
    expected = golden[f"{key}/values"]
    scale = np.abs(expected).max() or 1.0
    deviation = np.abs(array.reshape(-1)[:: int(golden[f"{key}/stride"])] - expected).max() / scale
    assert deviation < tolerance, f"{key}: {deviation:.2e}"
    total = float(golden[f"{key}/abs_sum"])
    assert abs(np.abs(array).sum() - total) <= tolerance * max(total, scale), key

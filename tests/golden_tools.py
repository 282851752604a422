"""Reading the recorded numbers in tests/golden, and models with the weights that they were recorded with."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kmax.categories import load_categories
from kmax.checkpoint.detectron2 import load_detectron2
from kmax.model import KMaXDeepLab, build_backbone
from kmax.model.max_deeplab import MaXDeepLab
from kmax.model.options import ModelOptions

GOLDEN = Path(__file__).parent / "golden"


def _recipe(path: str) -> Any:
    """A module of the golden folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"golden_{Path(path).stem}", GOLDEN / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe = _recipe("recipe.py")
recipe_tf = _recipe("tf/recipe_tf.py")
sys.modules["recipe_tf"] = recipe_tf  # what recipe_max imports
recipe_max = _recipe("max/recipe_max.py")

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
        return KMaXDeepLab(build_backbone(backbone), num_classes, ModelOptions(**{**own, **options}))


def seeded_model(name: str, **options: Any) -> KMaXDeepLab:
    """The model with the weights of the recorded run, imported as a published checkpoint; float64."""
    result = model(name, device="meta", **options)
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


TENSORFLOW: dict[str, tuple[str, str, dict[str, Any]]] = {
    "coco_r50": ("resnet50", "coco", {}),
    "coco_convnext_tiny": ("convnext_tiny", "coco", {}),
    "coco_axial_r50": ("max_s", "coco", {}),
    "cityscapes_r50": ("resnet50", "cityscapes", CITYSCAPES),
    "ade20k_r50": ("resnet50", "ade20k", {}),
}
"""Backbone, dataset and options of the recorded TensorFlow models."""


def variables(name: str) -> list[tuple[str, list[int]]]:
    """Names and shapes of a published TensorFlow checkpoint's variables."""
    return json.loads((GOLDEN / "tf" / f"vars_{name}.json").read_text())


def tensorflow_model(name: str, device: str = "cpu") -> KMaXDeepLab:
    """The model of a recorded TensorFlow configuration, randomly initialised; on `meta` without memory."""
    backbone, dataset, own = TENSORFLOW[name]
    with torch.device(device):
        body = build_backbone(backbone, family="deeplab2")
        return KMaXDeepLab(body, load_categories(dataset).num_classes, ModelOptions(family="deeplab2", **own))


MAX_DEEPLAB: dict[str, dict[str, Any]] = {"s": {}, "l": {"dim": 512, "semantic_head": "plain"}}
"""Options of the recorded MaX-DeepLab models by their variant."""


def max_variables(variant: str) -> list[tuple[str, list[int]]]:
    """Names and shapes of a published MaX-DeepLab checkpoint's variables."""
    return json.loads((GOLDEN / "max" / f"vars_coco_max_deeplab_{variant}.json").read_text())


def seeded_max_variables(variant: str, gamma_scale: float) -> dict[str, np.ndarray]:
    """A checkpoint's variables with the values of the recorded run."""
    return {name: recipe_max.seeded_tensor_max(name, shape, gamma_scale) for name, shape in max_variables(variant)}


def max_model(variant: str, device: str = "cpu", **options: Any) -> MaXDeepLab:
    """The MaX-DeepLab of a recorded run, randomly initialised; on `meta` without memory."""
    with torch.device(device):
        own = ModelOptions(architecture="max_deeplab", **{**MAX_DEEPLAB[variant], **options})
        return MaXDeepLab(variant, 133, own)

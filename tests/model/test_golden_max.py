"""MaX-DeepLab equals the published one, with weights from a real TensorFlow checkpoint file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorflow_files import write_checkpoint

import golden_tools
from kmax.categories import load_categories
from kmax.checkpoint.deeplab2 import from_deeplab2
from kmax.checkpoint.foreign import read_entries

STAGES = {"s": ("stage2", "stage3", "stage4", "stage5"), "l": ("stage1", "stage2", "stage3", "stage4", "stage5")}


@pytest.mark.parametrize("variant", ["s", pytest.param("l", marks=pytest.mark.slow)])
def test_every_output_equals_the_recorded_one(variant: str, tmp_path: Path) -> None:
    golden = golden_tools.load(f"max/forward_coco_max_deeplab_{variant}")
    seeded = golden_tools.seeded_max_variables(variant, float(golden["input/gamma_scale"]))
    entries = read_entries(write_checkpoint(tmp_path / "ckpt-100000", seeded))
    model = golden_tools.max_model(variant, "meta")
    model.load_state_dict(from_deeplab2(entries, load_categories("coco").is_thing), assign=True)
    model.eval()
    images = golden_tools.recipe.seeded_normal(str(golden["input/name"]), golden["input/shape"])
    with torch.no_grad():
        features, memory, _ = model._features(torch.from_numpy(images).float(), True)
        output = model(torch.from_numpy(images).float(), coarse=False)
        semantic = model.semantic(features, True)
    for name, feature in zip(STAGES[variant], features, strict=False):
        golden_tools.compare(feature, golden, name, 1e-4)
    golden_tools.compare(features[-1].relu(), golden, "feature_panoptic", 1e-4)
    golden_tools.compare(features[model.layout.semantic].relu(), golden, "feature_semantic", 1e-4)
    for kind, embedding in (("class", model.class_embedding), ("mask", model.mask_embedding)):
        golden_tools.compare(embedding(memory).transpose(1, 2), golden, f"transformer_{kind}_feature", 1e-4)
    (prediction,) = output.predictions
    golden_tools.compare(prediction.class_logits, golden, "transformer_class_logits", 1e-4)
    golden_tools.compare(prediction.mask_logits, golden, "pixel_space_mask_logits", 1e-4)
    golden_tools.compare(prediction.pixel_feature, golden, "pixel_space_normalized_feature", 1e-4)
    assert semantic is not None
    golden_tools.compare(semantic.roll(1, 1), golden, "semantic_logits", 1e-4)  # theirs has void first

"""The network equals the published one, with weights that come in through the checkpoint import."""

from __future__ import annotations

import pytest
import torch

import golden_tools

FORWARD = ["coco_r50", "coco_convnext_tiny", "cityscapes_r50", "ade20k_r50"]


@pytest.mark.parametrize("name", FORWARD)
def test_every_output_equals_the_recorded_one(name: str) -> None:
    golden = golden_tools.load(f"forward_{name}")
    model = golden_tools.seeded_model(name).float().eval()
    images = torch.from_numpy(
        golden_tools.recipe.seeded_normal(str(golden["input/name"]), golden["input/shape"])
    ).float()
    with torch.no_grad():
        features = model.backbone(images)
        pixels = model.pixel_decoder([features[key] for key in model.order], True)
        output = model(images)
    for stage, stride in enumerate((4, 8, 16, 32)):
        key = f"backbone/res{stage + 2}"
        if f"{key}/shape" in golden:
            golden_tools.compare(features[stride], golden, key, 1e-4)
    for key, feature in zip(("stride32", "stride16", "stride8"), pixels[:3], strict=True):
        golden_tools.compare(feature, golden, f"pixel_decoder/{key}", 1e-4)
    golden_tools.compare(pixels[-1], golden, "pixel_decoder/final", 1e-4)
    for key, prediction in zip([*(f"stage{i}" for i in range(6)), "final"], output.predictions, strict=True):
        golden_tools.compare(prediction.class_logits, golden, f"{key}/pred_logits", 1e-4)
        golden_tools.compare(prediction.mask_logits, golden, f"{key}/pred_masks", 1e-4)
        golden_tools.compare(prediction.pixel_feature, golden, f"{key}/pixel_feature", 1e-4)
    assert output.semantic_logits is None

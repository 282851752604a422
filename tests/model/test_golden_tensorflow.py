"""The deeplab2 family equals the published TensorFlow models, with weights from a real TensorFlow checkpoint file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorflow_files import write_checkpoint

import golden_tools
from kmax.categories import load_categories
from kmax.checkpoint.deeplab2 import class_order, from_deeplab2
from kmax.checkpoint.foreign import read_entries


@pytest.mark.parametrize("name", golden_tools.TENSORFLOW)
def test_every_output_equals_the_recorded_one(name: str, tmp_path: Path) -> None:
    golden = golden_tools.load(f"tf/forward_{name}")
    seeded = {key: golden_tools.recipe_tf.seeded_tensor_tf(key, shape) for key, shape in golden_tools.variables(name)}
    entries = read_entries(write_checkpoint(tmp_path / "ckpt-150000", seeded))
    is_thing = load_categories(golden_tools.TENSORFLOW[name][1]).is_thing
    model = golden_tools.tensorflow_model(name, "meta")
    model.load_state_dict(from_deeplab2(entries, is_thing), assign=True)
    model.eval()
    images = golden_tools.recipe.seeded_normal(str(golden["input/name"]), golden["input/shape"])
    with torch.no_grad():
        prediction = model(torch.from_numpy(images).float()).predictions[-1]
        semantic = model.semantic(model.backbone(torch.from_numpy(images).float()), aligned=True)
    theirs = prediction.class_logits[..., class_order(is_thing)]
    golden_tools.compare(theirs, golden, "transformer_class_logits", 1e-4)
    golden_tools.compare(prediction.mask_logits, golden, "pixel_space_mask_logits", 1e-4)
    golden_tools.compare(prediction.pixel_feature, golden, "pixel_space_normalized_feature", 1e-4)
    assert semantic is not None
    if semantic.shape[1] > len(is_thing):
        semantic = semantic.roll(1, 1)  # on COCO and ADE20K, their first channel is void
    golden_tools.compare(semantic, golden, "semantic_logits", 1e-4)

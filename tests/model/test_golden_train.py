"""A whole training step equals the recorded one: every loss, every gradient, the running statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import golden_tools
from kmax.checkpoint.detectron2 import our_name
from kmax.losses import Criterion
from kmax.losses.options import LossOptions
from kmax.structures import Target

LOSSES = {
    "loss_ce": "class",
    "loss_mask": "mask",
    "loss_dice": "dice",
    "loss_pixel_insdis": "instance_discrimination",
    "loss_aux_semantic": "semantic",
}
TOLERANCE = 1e-6


def our_loss(theirs: str) -> str:
    base, _, index = theirs.rpartition("_")
    return f"{LOSSES[base]}_{index}" if index.isdigit() else LOSSES[theirs]


@pytest.mark.parametrize("name", ["coco_r50", "coco_convnext_tiny", "cityscapes_r50"])
def test_a_training_step_equals_the_recorded_one(name: str) -> None:
    golden = golden_tools.load(f"train_{name}")
    model = golden_tools.seeded_model(name, drop_path=0.0).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    images = torch.from_numpy(golden_tools.recipe.seeded_normal(str(golden["input/name"]), golden["input/shape"]))
    targets = [
        Target(*(torch.from_numpy(golden[f"target{i}/{part}"].astype(np.int64)) for part in ("segment_map", "labels")))
        for i in range(len(images))
    ]
    semantic: dict[str, Any] = {} if int(golden["sample_k/semantic"]) else {"semantic_temperature": None}
    criterion = Criterion(golden_tools.CONFIGURATIONS[name][1], LossOptions(**semantic))
    output = model(images)
    losses = criterion(output, targets)
    total = losses.total
    total.backward()
    losses = {key: value.detach() for key, value in losses.by_name().items()}

    final = output.predictions[-1]
    golden_tools.compare(final.class_logits, golden, "output/pred_logits", TOLERANCE)
    golden_tools.compare(final.mask_logits, golden, "output/pred_masks", TOLERANCE)
    golden_tools.compare(final.pixel_feature, golden, "output/pixel_feature", TOLERANCE)
    golden_tools.compare(output.semantic_logits, golden, "output/aux_semantic_pred", TOLERANCE)
    recorded = {key.removeprefix("loss/") for key in golden if key.startswith("loss/")}
    assert {our_loss(key) for key in recorded} == set(losses)
    for key in recorded:
        expected = float(golden[f"loss/{key}"]) * float(golden[f"weight/{key}"])
        assert float(losses[our_loss(key)]) == pytest.approx(expected, rel=TOLERANCE), key
    assert float(total.detach()) == pytest.approx(float(golden["total"]), rel=TOLERANCE)
    check_gradients(model, golden)
    state = model.state_dict()
    for key in golden:
        if key.startswith("statistics/"):
            actual = state[str(our_name(key.removeprefix("statistics/")))].numpy()
            np.testing.assert_allclose(actual, golden[key], rtol=TOLERANCE, atol=TOLERANCE * np.abs(golden[key]).max())


def check_gradients(model: torch.nn.Module, golden) -> None:
    parameters = dict(model.named_parameters())
    assert len(golden["gradient/names"]) == len(parameters)
    for key, norm, head in zip(
        golden["gradient/names"], golden["gradient/norms"], golden["gradient/heads"], strict=True
    ):
        gradient = parameters[str(our_name(str(key)))].grad
        assert gradient is not None, key
        actual = float(gradient.norm())
        if norm < 1e-9:
            assert actual < 1e-8, key
            continue
        assert actual == pytest.approx(norm, rel=TOLERANCE), key
        first = gradient.flatten()[:8].numpy()
        np.testing.assert_allclose(first, head[: len(first)], atol=TOLERANCE * norm, rtol=TOLERANCE, err_msg=str(key))

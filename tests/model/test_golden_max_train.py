"""A whole training step of MaX-DeepLab equals the recorded one: every loss, every gradient, the running statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import golden_tools
from kmax.categories import load_categories
from kmax.checkpoint.deeplab2 import Variables, from_deeplab2
from kmax.losses import Criterion
from kmax.losses.options import LossOptions
from kmax.structures import Target

TOLERANCE = 1e-6
OUTPUTS = {
    "class_logits": "transformer_class_logits",
    "mask_logits": "pixel_space_mask_logits",
    "pixel_feature": "pixel_space_normalized_feature",
}

PROTOTYPES = LossOptions(semantic_temperature=None, instance_loss="prototypes")


@pytest.mark.parametrize("variant", ["s", pytest.param("l", marks=pytest.mark.slow)])
def test_a_training_step_equals_the_recorded_one(variant: str) -> None:
    golden = golden_tools.load(f"max/train_coco_max_deeplab_{variant}")
    is_thing = load_categories("coco").is_thing
    model = golden_tools.max_model(variant, "meta", drop_path=0.0)
    seeded = golden_tools.seeded_max_variables(variant, float(golden["input/gamma_scale"]))
    state = from_deeplab2(seeded, is_thing)
    del seeded
    model.load_state_dict({key: value.double() for key, value in state.items()}, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_()
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    images = torch.from_numpy(golden_tools.recipe.seeded_normal(str(golden["input/name"]), golden["input/shape"]))
    targets = [
        Target(*(torch.from_numpy(golden[f"target{i}/{part}"].astype(np.int64)) for part in ("segment_map", "labels")))
        for i in range(len(images))
    ]
    counts = counted(model)
    output = model(images)
    criterion = Criterion(133, PROTOTYPES, is_thing)
    losses = criterion(output, targets).by_name()
    total = torch.stack(list(losses.values())).sum()
    total.backward()

    (final,) = output.predictions
    for ours, theirs in OUTPUTS.items():
        golden_tools.compare(getattr(final, ours), golden, f"output/{theirs}", TOLERANCE)
    golden_tools.compare(output.semantic_logits.roll(1, 1), golden, "output/semantic_logits", TOLERANCE)
    assert len(losses) == 5
    for key, value in losses.items():
        expected = float(golden[f"loss/{key}"]) * float(golden[f"weight/{key}"])
        assert value.item() == pytest.approx(expected, rel=TOLERANCE), key
    assert total.item() == pytest.approx(float(golden["total"]), rel=TOLERANCE)
    table = Variables.of_ours(model.state_dict())
    check_gradients(model, table, golden)
    check_statistics(model.state_dict(), table, counts, golden, float(golden["input/gamma_scale"]))


def check_gradients(model: torch.nn.Module, table: Variables, golden: Any) -> None:
    parameters = dict(model.named_parameters())
    assert len(golden["gradient/names"]) > 500
    for key, norm, head in zip(
        golden["gradient/names"], golden["gradient/norms"], golden["gradient/heads"], strict=True
    ):
        name = str(table.names.ours(str(key)))
        gradient = parameters[name].grad
        assert gradient is not None, key
        if name.startswith(("semantic_head.logits.", "semantic_head.layers.2.")):
            gradient = gradient.roll(1, 0)  # theirs has void first
        actual = float(gradient.norm())
        if norm < 1e-9:
            assert actual < 1e-8, key
            continue
        assert actual == pytest.approx(norm, rel=TOLERANCE), key
        first = table.layout(str(key)).theirs(gradient).flatten()[:8].numpy()
        np.testing.assert_allclose(first, head[: len(first)], atol=TOLERANCE * norm, rtol=TOLERANCE, err_msg=str(key))


def counted(model: torch.nn.Module) -> dict[str, int]:
    """How many values of a channel each batch norm sees, by its name; filled when the model runs."""
    counts: dict[str, int] = {}

    def count(name: str) -> Any:
        return lambda module, inputs: counts.update({name: inputs[0].numel() // inputs[0].shape[1]})

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(count(name))
    return counts


def check_statistics(
    state: dict[str, torch.Tensor], table: Variables, counts: dict[str, int], golden: Any, gamma_scale: float
) -> None:
    """TensorFlow's running variances are the biased ones: theirs move by v, ours by v·n/(n − 1)."""
    checked = 0
    for key in golden:
        if not key.startswith("statistics/"):
            continue
        theirs, expected, checked = key.removeprefix("statistics/"), golden[key], checked + 1
        ours = str(table.names.ours(theirs))
        actual = table.layout(theirs).theirs(state[ours]).numpy().reshape(expected.shape)
        if theirs.endswith("moving_variance"):
            n = counts[ours.removesuffix(".running_var")]
            before = golden_tools.recipe_max.seeded_tensor_max(theirs, expected.shape, gamma_scale) * 0.99
            actual = before + (actual - before) * (n - 1) / n
        np.testing.assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE * np.abs(expected).max())
    assert checked >= 40

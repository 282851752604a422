"""The table of published PyTorch names is a bijection for all nine configurations."""

from __future__ import annotations

import json

import pytest
import torch

import golden_tools
from kmax.checkpoint.detectron2 import from_detectron2, load_detectron2, our_name, their_name, to_detectron2

LARGER = [pytest.param(name, marks=pytest.mark.long) for name in golden_tools.CONFIGURATIONS if name != "coco_r50"]


@pytest.mark.long
@pytest.mark.parametrize("name", golden_tools.CONFIGURATIONS)
def test_names_and_shapes_are_a_bijection(name: str) -> None:
    theirs = dict(golden_tools.entries(name))
    model = golden_tools.model(name, device="meta")
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert {our_name(key): shape for key, shape in theirs.items()} == ours
    assert {their_name(key): shape for key, shape in ours.items()} == theirs
    summary = json.loads((golden_tools.GOLDEN / "checkpoints/summary.json").read_text())[name]
    assert sum(p.numel() for p in model.parameters()) == summary["parameters"]
    assert model.semantic_head is not None
    auxiliary = sum(p.numel() for p in model.semantic_head.parameters())
    assert summary["parameters"] - auxiliary == summary["parameters_without_aux_semantic"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["coco_r50", *LARGER])
def test_there_and_back_gives_identical_bytes(name: str) -> None:
    theirs = {key: golden_tools.recipe.seeded_tensor(key, shape) for key, shape in golden_tools.entries(name)}
    model = golden_tools.model(name, device="meta")
    load_detectron2(model, {"model": theirs})
    back = to_detectron2(model.state_dict())
    assert back.keys() == theirs.keys()
    for key, value in theirs.items():
        assert back[key].numpy().tobytes() == value.tobytes(), key


def test_what_does_not_fit_is_named() -> None:
    model = golden_tools.model("ade20k_r50", device="meta")
    state = {key: torch.zeros(shape, device="meta") for key, shape in golden_tools.entries("coco_r50")}
    with pytest.raises(ValueError, match=r"of another shape .first: semantic_head.logits"):
        load_detectron2(model, state)
    with pytest.raises(ValueError, match=r"not of a published PyTorch kMaX-DeepLab, the first is 'fc.weight'"):
        from_detectron2({"fc.weight": torch.zeros(1)})
    del state["backbone.stem.conv1.weight"]
    with pytest.raises(ValueError, match="1 missing"):
        load_detectron2(model, state)

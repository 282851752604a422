"""The criterion of MaX-DeepLab against the recorded numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import golden_tools
from kmax.losses import Criterion, match_queries
from kmax.losses.options import LossOptions
from kmax.structures import Output, Prediction, Target

CASES = sorted(f"max/{path.stem}" for path in (golden_tools.GOLDEN / "max").glob("criterion_max_*.npz"))
WEIGHTS = {"class": 3.0, "mask": 0.3, "dice": 3.0, "instance_discrimination": 1.0, "semantic": 1.0}

PROTOTYPES = LossOptions(semantic_temperature=None, instance_loss="prototypes")


def target(fixture: Any, image: int) -> Target:
    maps = {
        key: torch.from_numpy(fixture[f"target{image}/{key}"])
        for key in ("segment_map", "labels", "crowd", "semantic_weight")
        if f"target{image}/{key}" in fixture
    }
    crowd = maps["crowd"].long() if "crowd" in maps else None
    return Target(maps["segment_map"].long(), maps["labels"], crowd, maps.get("semantic_weight"))


def recorded(case: str) -> tuple[Any, Output, list[Target]]:
    """A fixture, with its inputs as leaves that require a gradient; semantic channels in their order, void first."""
    fixture = golden_tools.load(case)
    seed = int(fixture["input/seed"])

    def values(key: str) -> torch.Tensor:
        normal = golden_tools.recipe.seeded_normal(f"{key}_{seed}", tuple(fixture[f"input/{key}"]))
        return torch.from_numpy(np.round(normal * 64) / 64)

    feature = torch.nn.functional.normalize(values("pixel_feature"), dim=1).requires_grad_()
    prediction = Prediction(
        (values("pred_logits") * 2).requires_grad_(), (values("pred_masks") * 3).requires_grad_(), feature
    )
    return fixture, Output((prediction,), values("semantic").requires_grad_()), [target(fixture, i) for i in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_the_recorded_ones(case: str) -> None:
    fixture, output, targets = recorded(case)
    classes, things = int(fixture["num_classes"]), int(fixture["num_things"])
    criterion = Criterion(classes, PROTOTYPES, [k < things for k in range(classes)])
    assert output.semantic_logits is not None
    losses = criterion(output._replace(semantic_logits=output.semantic_logits.roll(-1, 1)), targets).by_name()
    assert set(losses) == set(WEIGHTS)
    for name, value in losses.items():
        np.testing.assert_allclose(
            value.item(), WEIGHTS[name] * fixture[f"loss/{name}"], rtol=1e-6, atol=1e-12, err_msg=name
        )
    torch.stack(list(losses.values())).sum().backward()
    leaves = {**output.predictions[0]._asdict(), "semantic": output.semantic_logits}
    names = {"pred_logits": "class_logits", "pred_masks": "mask_logits"}
    checked = {key.split("/")[1] for key in fixture if key.startswith("gradient/")}
    assert len(checked) == (3 if case.endswith("crowd") else 4)  # TensorFlow's mask gradient on crowd is a quirk
    for name in checked:
        golden_tools.compare(leaves[names.get(name, name)].grad, fixture, f"gradient/{name}", 1e-6)


@pytest.mark.parametrize("case", CASES)
def test_match_is_the_recorded_one(case: str) -> None:
    fixture, output, targets = recorded(case)
    matched = match_queries(output.predictions[0].class_logits, output.predictions[0].mask_logits, targets)
    for image in (0, 1):
        queries = (matched.segment[image] >= 0).nonzero()[:, 0]
        np.testing.assert_array_equal(queries, fixture[f"match{image}/queries"])
        np.testing.assert_array_equal(matched.segment[image, queries], fixture[f"match{image}/segments"])
        for name in ("mask_similarity", "class_similarity"):
            values = getattr(matched, name)[image, queries]
            np.testing.assert_allclose(values, fixture[f"match{image}/{name}"], rtol=1e-6)

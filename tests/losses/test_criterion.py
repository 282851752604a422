"""The criterion against the recorded numbers, and at its edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import golden_tools
from kmax.losses import Criterion, match_queries
from kmax.losses.options import LossOptions
from kmax.structures import Output, Prediction, Target

CASES = sorted(path.stem for path in golden_tools.GOLDEN.glob("criterion_*.npz"))
LOSSES = {
    "class": "loss_ce",
    "mask": "loss_mask",
    "dice": "loss_dice",
    "instance_discrimination": "loss_pixel_insdis",
    "semantic": "loss_aux_semantic",
}
WEIGHTS = {"class": 3.0, "mask": 0.3, "dice": 3.0, "instance_discrimination": 1.0, "semantic": 1.0}
GRADIENTS = ("pred_logits", "pred_masks", "pixel_feature", "aux_semantic_pred")


def recorded(case: str) -> tuple[dict[str, np.ndarray], Output, list[Target]]:
    """A fixture, with its inputs as leaves that require a gradient."""
    fixture = dict(golden_tools.load(case))
    seed = int(fixture["input/seed"])

    def values(key: str) -> Tensor:
        normal = golden_tools.recipe.seeded_normal(f"{key}_{seed}", tuple(fixture[f"input/{key}"]))
        return torch.from_numpy(np.round(normal * 64) / 64)

    feature = torch.nn.functional.normalize(values("pixel_feature"), dim=1).requires_grad_()
    prediction = Prediction(
        (values("pred_logits") * 2).requires_grad_(), (values("pred_masks") * 3).requires_grad_(), feature
    )
    targets = [
        Target(
            torch.from_numpy(fixture[f"target{i}/segment_map"]).long(), torch.from_numpy(fixture[f"target{i}/labels"])
        )
        for i in range(2)
    ]
    return fixture, Output((prediction,), values("semantic").requires_grad_()), targets


def leaves(output: Output) -> list[Tensor]:
    assert output.semantic_logits is not None
    return [*output.predictions[-1], output.semantic_logits]


def random_output(predictions: int = 1, batch: int = 2, queries: int = 6, size: int = 17, classes: int = 5) -> Output:
    def prediction() -> Prediction:
        feature = torch.nn.functional.normalize(torch.randn(batch, 8, size, size), dim=1)
        return Prediction(
            torch.randn(batch, queries, classes + 1).requires_grad_(),
            torch.randn(batch, queries, size, size).requires_grad_(),
            feature.requires_grad_(),
        )

    semantic = torch.randn(batch, classes + 1, size, size).requires_grad_()
    return Output(tuple(prediction() for _ in range(predictions)), semantic)


def random_targets(batch: int = 2, segments: int = 4, size: int = 17, classes: int = 5) -> list[Target]:
    return [
        Target(torch.randint(-1, segments, (size, size)), torch.randint(classes, (segments,))) for _ in range(batch)
    ]


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_the_recorded_ones(case: str) -> None:
    fixture, output, targets = recorded(case)
    losses = Criterion(int(fixture["num_classes"]), LossOptions(samples=10**6))(output, targets).by_name()
    assert set(losses) == set(LOSSES)
    for name, value in losses.items():
        expected = WEIGHTS[name] * fixture[f"loss/{LOSSES[name]}"]
        np.testing.assert_allclose(value.item(), expected, rtol=1e-6, atol=1e-12)
    torch.stack(list(losses.values())).sum().backward()
    for name, leaf in zip(GRADIENTS, leaves(output), strict=True):
        assert leaf.grad is not None
        gradient, stride = leaf.grad.flatten().numpy(), int(fixture[f"gradient/{name}/stride"])
        expected = fixture[f"gradient/{name}/values"]
        scale = max(np.abs(expected).max(), 1e-9)
        np.testing.assert_allclose(gradient[::stride], expected, rtol=1e-6, atol=1e-6 * scale)
        np.testing.assert_allclose(np.abs(gradient).sum(), fixture[f"gradient/{name}/abs_sum"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_match_is_the_recorded_one(case: str) -> None:
    fixture, output, targets = recorded(case)
    final = output.predictions[-1]
    matched = match_queries(final.class_logits, final.mask_logits, targets)
    for image in range(2):
        queries = (matched.segment[image] >= 0).nonzero()[:, 0]
        np.testing.assert_array_equal(queries, fixture[f"match{image}/queries"])
        np.testing.assert_array_equal(matched.segment[image, queries], fixture[f"match{image}/segments"])
        for ours, theirs in (("mask_similarity", "mask_similarity"), ("class_similarity", "class_similarity")):
            values = getattr(matched, ours)[image, queries]
            np.testing.assert_allclose(values, fixture[f"match{image}/{theirs}"], rtol=1e-6)


def test_intermediate_predictions_share_the_final_match() -> None:
    torch.manual_seed(0)
    output, targets = random_output(predictions=3), random_targets()
    criterion = Criterion(5, LossOptions(samples=1000))
    losses = criterion(output, targets).by_name()
    per_prediction = ("class", "mask", "dice", "instance_discrimination")
    assert set(losses) == {f"{n}{s}" for n in per_prediction for s in ("", "_0", "_1")} | {"semantic"}
    # A coarse prediction equal to the final one has equal losses: nothing but the match ties them together.
    final = output.predictions[-1]
    twice = criterion(Output((final, final)), targets).by_name()
    for name in per_prediction:
        torch.testing.assert_close(twice[f"{name}_0"], twice[name])
        torch.testing.assert_close(twice[name], losses[name])
    # With another final prediction the match, and with it the coarse losses, are others.
    other = criterion(Output((final, output.predictions[0])), targets).by_name()
    assert not torch.allclose(other["class_0"], losses["class"])


@pytest.mark.parametrize("segments", [0, 4, 30])
def test_every_input_receives_a_finite_gradient(segments: int) -> None:
    torch.manual_seed(0)
    output = random_output()
    targets = [random_targets(batch=1)[0], random_targets(batch=1, segments=segments)[0]]
    Criterion(5, LossOptions(samples=50))(output, targets).total.backward()
    for leaf in leaves(output):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_an_empty_image_takes_part_in_the_mean_over_the_batch() -> None:
    torch.manual_seed(0)
    output, targets = random_output(), random_targets()
    empty = Target(torch.full((17, 17), -1), torch.zeros(0, dtype=torch.int64))
    criterion = Criterion(5, LossOptions(samples=1000))

    def first(tensor: Tensor) -> Tensor:
        return tensor[:1]

    alone = criterion(
        Output((Prediction(*map(first, output.predictions[0])),), first(leaves(output)[-1])), targets[:1]
    ).by_name()
    both = criterion(output, [targets[0], empty]).by_name()
    for name in ("mask", "dice", "instance_discrimination", "semantic"):
        torch.testing.assert_close(both[name], alone[name] / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    output, targets = random_output(), random_targets()
    half = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves(output)]
    full = [leaf.detach().float().requires_grad_() for leaf in half]
    results = []
    for tensors in (half, full):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = Criterion(5, LossOptions(samples=1000))(
                Output((Prediction(*tensors[:3]),), tensors[3]), targets
            ).by_name()
            torch.stack(list(losses.values())).sum().backward()
        results.append(losses)
    for name, value in results[0].items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, results[1][name], rtol=1e-5, atol=1e-6)
    for low, high in zip(half, full, strict=True):
        assert low.grad is not None
        assert high.grad is not None
        assert low.grad.dtype == dtype
        scale = high.grad.abs().max().item()
        torch.testing.assert_close(low.grad.float(), high.grad, rtol=0.02, atol=0.01 * scale)


def test_an_overflow_yields_losses_that_are_not_finite_instead_of_an_error() -> None:
    torch.manual_seed(0)
    output, targets = random_output(), random_targets()
    with torch.no_grad():
        output.predictions[0].mask_logits[0, 2, 3, 3] = torch.inf
    losses = Criterion(5)(output, targets).by_name()
    assert not losses["mask"].isfinite()


def test_coarse_pixel_features_may_be_left_at_their_own_stride() -> None:
    torch.manual_seed(0)
    for size, coarse in ((17, 9), (16, 8)):
        output, targets = random_output(predictions=2, size=size), random_targets(size=size)
        first, final = output.predictions
        small = torch.randn(2, 8, coarse, coarse).div(4).double().requires_grad_()
        resized = torch.nn.functional.interpolate(small, (size, size), mode="bilinear", align_corners=size % 2 == 1)
        gradients = []
        values = []
        for feature in (small, resized):
            losses = Criterion(5, LossOptions(samples=10**4))(
                Output((first._replace(pixel_feature=feature), final)), targets
            ).by_name()
            value = losses["instance_discrimination_0"]
            gradients.append(torch.autograd.grad(value, small, retain_graph=True)[0])
            values.append(value)
        torch.testing.assert_close(*values)
        torch.testing.assert_close(*gradients)


def test_input_that_does_not_fit_is_refused() -> None:
    output, targets = random_output(), random_targets()
    with pytest.raises(ValueError, match="for 7 classes, the model predicts 5"):
        Criterion(7)(output, targets)
    with pytest.raises(ValueError, match="1 targets for a batch of 2"):
        Criterion(5)(output, targets[:1])
    with pytest.raises(ValueError, match="make targets at the mask logits' stride"):
        Criterion(5)(output, random_targets(size=9))
    with pytest.raises(ValueError, match="power of two"):
        Criterion(5)(output._replace(semantic_logits=torch.randn(2, 6, 7, 7)), targets)
    with pytest.raises(ValueError, match="resize those of all predictions"):
        Criterion(5)(Output((random_output(size=9).predictions[0], output.predictions[0])), targets)
    with pytest.raises(ValueError, match="samples=0 must be at least 1"):
        Criterion(5, LossOptions(samples=0))


def test_the_criterion_has_no_parameters() -> None:
    assert not Criterion(5).state_dict()


def test_the_total_is_the_sum_of_all_losses() -> None:
    torch.manual_seed(0)
    losses = Criterion(5, LossOptions(samples=50))(random_output(predictions=3), random_targets())
    torch.testing.assert_close(losses.total, torch.stack(list(losses.by_name().values())).sum())
    assert set(losses.final) == set(LOSSES)
    assert {name: losses.by_name()[name] for name in LOSSES} == losses.final

"""The closed-form gradient of the mask losses against autograd and against finite differences."""

from __future__ import annotations

import pytest
import torch

from kmax.losses import match_queries
from kmax.losses.kernels import strips
from kmax.losses.kernels.owned_softmax import OwnedSoftmax
from kmax.losses.mask import mask_losses, owned_softmax
from kmax.structures import Target


@pytest.fixture(params=[1, 2**18], ids=["many strips", "one strip"])
def _strip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(strips._STRIP_ELEMENTS, "cpu", request.param)


@pytest.mark.usefixtures("_strip")
def test_values_and_gradient_are_those_of_the_dense_formulation() -> None:
    torch.manual_seed(0)
    logits = (10 * torch.randn(2, 5, 700, dtype=torch.float64)).requires_grad_()
    owner = torch.randint(-1, 5, (2, 700))
    ours, expected = OwnedSoftmax.apply(logits, owner), owned_softmax(logits, owner)
    weights = [torch.randn_like(value) for value in expected]
    for value, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(value, reference)
    gradient, reference = (
        torch.autograd.grad(sum((w * v).sum() for w, v in zip(weights, values, strict=True)), logits)[0]
        for values in (ours, expected)
    )
    torch.testing.assert_close(gradient, reference)
    assert (gradient.movedim(1, 2)[owner < 0] == 0).all()


def test_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    owner = torch.tensor([[0, 1, 1, -1, 0, 0], [-1, -1, 2, 2, 0, 2]])
    assert torch.autograd.gradcheck(lambda x: OwnedSoftmax.apply(x, owner), (logits,))


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_input_s_memory_format_does_not_matter(channels_last: bool) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    target = Target(torch.randint(-1, 3, (5, 6)), torch.tensor([0, 1, 1]))
    matched = match_queries(torch.randn(2, 4, 3), values, [target, target])
    leaf = values.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    leaf.requires_grad_()
    mask, dice = (loss[0] for loss in mask_losses([leaf], matched))
    (gradient,) = torch.autograd.grad(mask + 2 * dice, leaf)
    dense = values.clone().requires_grad_()
    entropy, intersection, mass = owned_softmax(dense.flatten(2), matched.owner)
    area = torch.stack([(matched.owner == n).sum(1) for n in range(4)], 1)
    terms = (1 - (2 * intersection + 1) / (mass + area + 1)) * matched.class_similarity
    expected_mask = (entropy.sum(1) / (matched.owner >= 0).sum(1)).mean()
    expected_dice = terms.sum(1).mean() * 0.75 / 4
    torch.testing.assert_close(mask, expected_mask)
    torch.testing.assert_close(dice, expected_dice)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected_mask + 2 * expected_dice, dense)[0])


def test_pixels_that_are_certain_do_not_count_in_the_mean() -> None:
    logits = torch.zeros(1, 2, 1, 4)
    logits[0, 0, 0, :2] = 200.0  # cross-entropy exactly 0 here, ln 2 elsewhere
    target = Target(torch.zeros(1, 4).long(), torch.tensor([0]))
    class_logits = torch.tensor([[[9.0, 0.0], [0.0, 9.0]]])
    mask, _ = mask_losses([logits], match_queries(class_logits, logits, [target]))
    torch.testing.assert_close(mask[0], torch.tensor(2.0).log())

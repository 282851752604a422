"""The semantic loss against plain cross-entropy."""

from __future__ import annotations

import torch
from torch.nn import functional

from kmax.losses.semantic import semantic_loss
from kmax.structures import Target


def targets() -> list[Target]:
    segment_map = torch.randint(-1, 3, (2, 33, 17))
    return [Target(segment_map[0], torch.tensor([4, 1, 0])), Target(segment_map[1], torch.tensor([2, 2, 3]))]


def dense(logits: torch.Tensor, both: list[Target], stride: int) -> torch.Tensor:
    losses = []
    for image, target in zip(logits, both, strict=True):
        strided = target.segment_map[::stride, ::stride]
        label = torch.where(strided >= 0, target.labels[strided], -100)
        losses.append(functional.cross_entropy(image[None], label[None]))
    return torch.stack(losses).mean()


def test_all_pixels_of_a_coarser_head() -> None:
    torch.manual_seed(0)
    logits, both = torch.randn(2, 5, 5, 3), targets()
    torch.testing.assert_close(semantic_loss(logits, both, (33, 17), None, 1), dense(logits, both, 8))


def test_drawing_every_pixel_is_taking_all() -> None:
    torch.manual_seed(0)
    logits, both = torch.randn(2, 6, 33, 17), targets()
    torch.testing.assert_close(semantic_loss(logits, both, (33, 17), 2.0, 10**6), dense(logits, both, 1))


def test_only_drawn_pixels_receive_a_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 6, 33, 17, requires_grad=True)
    (gradient,) = torch.autograd.grad(semantic_loss(logits, targets(), (33, 17), 2.0, 25), logits)
    assert gradient.abs().sum(1).count_nonzero() == 50

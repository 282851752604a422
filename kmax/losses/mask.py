"""Per-pixel cross-entropy over queries, and dice, both from one softmax and with one closed-form gradient.

With p the softmax over queries of the logits x, o(j) the owner of pixel j, and everything restricted to pixels with an
owner, the losses need only

    cross-entropy  c_j = −ln p_oj        intersection  I_n = Σ_{j: o(j) = n} p_nj        mass  A_n = Σ_j p_nj.

With γ, ι, α the gradients that arrive at c, I and A,

    ∂L/∂x_nj = p_nj (γ_j + α_n − Σ_m p_mj α_m − p_oj ι_o) − [n = o(j)] (γ_j − p_oj ι_o).

Only the normaliser of the softmax is kept between the passes: to exponentiate again costs less than to store (B, N, P).

Letters: B batch, N queries, P = h·w pixels, s pixels of a strip.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kmax.losses.common import exponentials, mean_over_images, strips
from kmax.losses.matching import Match
from kmax.numerics import at_least_float32


class OwnedSoftmax(torch.autograd.Function):
    """(logits (B, N, P), owner (B, P)) → cross-entropy (B, P), 0 on void; intersection (B, N); mass (B, N)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        owned = owner >= 0
        index = owner.clamp(min=0)
        shape, like = owner.shape, at_least_float32(logits[:1, :1, :1])
        cross_entropy, normaliser, of_owner = (like.new_empty(shape) for _ in range(3))
        mass = like.new_zeros(logits.shape[:2])
        for pixels, exp, top, total in exponentials(logits):
            inside, own = owned[:, pixels], index[:, None, pixels]
            log_total = total[:, 0].log()
            logit = logits[:, :, pixels].gather(1, own)[:, 0]
            cross_entropy[:, pixels] = log_total - (logit - top[:, 0])
            normaliser[:, pixels] = log_total + top[:, 0]
            of_owner[:, pixels] = (exp.gather(1, own) / total)[:, 0]
            mass += (exp @ (inside[:, None] / total).transpose(1, 2))[..., 0]
        cross_entropy.masked_fill_(~owned, 0)
        of_owner.masked_fill_(~owned, 0)
        normaliser.masked_fill_(~owned, torch.inf)  # the softmax of the backward pass vanishes on void
        intersection = torch.zeros_like(mass).scatter_add_(1, index, of_owner)
        ctx.save_for_backward(logits, index, owned, normaliser, of_owner)
        return cross_entropy, intersection, mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_entropy: Tensor, grad_intersection: Tensor, grad_mass: Tensor) -> tuple[Tensor, None]:
        logits, index, owned, normaliser, of_owner = ctx.saved_tensors
        with torch.autocast(logits.device.type, enabled=False):
            grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
            through_owner = of_owner * grad_intersection.gather(1, index)
            at_owner = (through_owner - grad_entropy).masked_fill(~owned, 0)
            per_pixel = grad_entropy - through_owner
            for pixels in strips(logits):
                p = (at_least_float32(logits[:, :, pixels]) - normaliser[:, None, pixels]).exp_()
                factor = per_pixel[:, None, pixels] - grad_mass[:, None] @ p
                p.mul_(grad_mass[..., None] + factor)
                p.scatter_add_(1, index[:, None, pixels], at_owner[:, None, pixels])
                grad[:, :, pixels] = p
        return grad, None


def mask_losses(mask_logits: Tensor, match: Match) -> tuple[Tensor, Tensor]:
    """Losses `mask` and `dice` of one prediction, unweighted.

    Args:
        mask_logits: (B, N, h, w).
        match: of the final prediction.
    """
    cross_entropy, intersection, mass = OwnedSoftmax.apply(mask_logits.flatten(2), match.owner)
    owned = match.owner >= 0
    area = torch.zeros_like(mass).scatter_add_(1, match.owner.clamp(min=0), owned.to(mass.dtype))
    dice = 1 - (2 * intersection + 1) / (mass + area + 1)
    matched = match.segment >= 0
    weight = match.class_similarity.clamp(min=1e-5) * matched
    return mean_over_images(cross_entropy), (dice * weight).sum(1).mean() * 0.75 / mass.shape[1]

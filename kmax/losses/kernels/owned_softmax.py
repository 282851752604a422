"""The terms of the mask losses that depend on the softmax over queries, with one closed-form gradient.

With p the softmax over queries of the logits x, o(j) the owner of pixel j, and everything restricted to pixels with an
owner:

    cross-entropy  c_j = −ln p_oj        intersection  I_n = Σ_{j: o(j) = n} p_nj        mass  A_n = Σ_j p_nj.

With γ, ι, α the incoming gradients of c, I and A,

    ∂L/∂x_nj = p_nj (γ_j + α_n − Σ_m p_mj α_m − p_oj ι_o) − [n = o(j)] (γ_j − p_oj ι_o).

Only the normalizer of the softmax is kept between the passes: exponentiating again costs less than storing (B, N, P).

Letters: B batch, N queries, P = h·w pixels, s pixels of a strip.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kmax.losses.kernels.strips import LOG2_E, exponentials, strips
from kmax.numerics import at_least_float32, without_autocast


class OwnedSoftmax(torch.autograd.Function):
    """(logits (B, N, P), owner (B, P)) → cross-entropy (B, P), 0 on void; intersection (B, N); mass (B, N)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        void = owner < 0
        owned = ~void
        index = owner.clamp(min=0)
        own = at_least_float32(torch.empty_like(logits[:, 0]))  # (B, P)
        highest, log_total = torch.empty_like(own), torch.empty_like(own)
        mass = own.new_zeros(logits.shape[:2])
        for pixels, exp, top, total in exponentials(logits):
            own[:, pixels] = logits[:, :, pixels].gather(1, index[:, None, pixels])[:, 0]
            highest[:, pixels], log_total[:, pixels] = top[:, 0], total[:, 0].log()
            mass += (exp @ (owned[:, None, pixels] / total).transpose(1, 2))[..., 0]
        cross_entropy = (log_total - (own - highest)).masked_fill_(void, 0)
        of_owner = (-cross_entropy).exp_().masked_fill_(void, 0)  # p_oj
        shift = (log_total + highest).mul_(-LOG2_E)  # p = exp(x) · 2^shift
        shift.masked_fill_(void, -torch.inf)  # p vanishes on void in the backward pass
        intersection = torch.zeros_like(mass).scatter_add_(1, index, of_owner)
        ctx.save_for_backward(logits, index, void, shift, of_owner)
        return cross_entropy, intersection, mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_entropy: Tensor, grad_intersection: Tensor, grad_mass: Tensor) -> tuple[Tensor, None]:
        logits, index, void, shift, of_owner = ctx.saved_tensors
        with without_autocast(logits):
            grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
            through_owner = of_owner * grad_intersection.gather(1, index)
            at_owner = (through_owner - grad_entropy).masked_fill(void, 0)
            per_pixel = grad_entropy - through_owner
            for pixels in strips(logits):
                strip = at_least_float32(logits[:, :, pixels])
                p = torch.add(shift[:, None, pixels], strip, alpha=LOG2_E).exp2_()
                factor = per_pixel[:, None, pixels] - grad_mass[:, None] @ p
                p.mul_(grad_mass[..., None] + factor)
                p.scatter_add_(1, index[:, None, pixels], at_owner[:, None, pixels])
                grad[:, :, pixels] = p
        return grad, None

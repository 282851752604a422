"""Batch norm over the batches of all ranks, with one exchange per pass and no wait of the host.

Each rank contributes the count of its values, their sum and their sum of squares, in one tensor of at least float32.
Sums are taken about the running mean, which is the same on every rank: if the batch mean is close
to it, subtracting squares loses no precision. With global mean μ, variance v, x̂ = (x − μ) / √(v + ε) and the gradient
g at y = w x̂ + b, summed over the N values of a channel on all ranks,

    ∂L/∂x = w / √(v + ε) · (g − Σg / N − x̂ · Σ(g x̂) / N).

torch's own layer indexes with a mask, for which the host waits three times per norm, and its conversion drops the
activation inside timm's `BatchNormAct2d`.

Letters: B batch, C channels, N values of a channel on all ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

_EPS = 1e-5  # of the CUDA kernel of moments, taken out of its result again


class SyncBatchNorm(_BatchNorm):
    """The batch norm `norm` over (B, C, …), with the statistics of all ranks in training.

    Parameters, buffers and their names stay those of `norm`, and so do dropout and activation of timm's
    `BatchNormAct2d`. With one process, or in evaluation, it computes what `norm` computes. Ranks may hold different
    numbers of pixels.
    """

    min_ranks = 2
    """Smallest number of ranks that exchange statistics; 1 allows measuring the cost of the exchange on one device."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, "meta")
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        for name, child in norm.named_children():  # drop and act
            self.add_module(name, child)
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 0
        y = self._together(input) if self.training and ranks >= self.min_ranks else super().forward(input)
        for child in self.children():
            y = child(y)
        return y

    def _together(self, x: Tensor) -> Tensor:
        shift = x.new_zeros(x.shape[1]) if self.running_mean is None else self.running_mean
        y: Tensor
        y, mean, variance, count = _Normalize.apply(x, self.weight, self.bias, shift, self.eps)
        if self.track_running_stats and self.running_mean is not None:
            self._track(mean, variance, count)
        return y

    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics toward those of a batch; the variance without bias."""
        assert self.running_mean is not None, "asked for by the caller"
        assert self.running_var is not None, "comes with the mean"
        step: Tensor | float | None = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            step = 1 / self.num_batches_tracked.to(mean.dtype) if step is None else step
        assert step is not None, "nothing is counted where a batch is seen again, with a momentum of 0"
        for running, new in (
            (self.running_mean, mean),
            (self.running_var, variance * count / (count - 1).clamp(min=1)),
        ):
            running.add_((new - running) * step)

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # the replaced layer already fits its input


def synchronize(model: nn.Module) -> nn.Module:
    """Replace every batch norm below `model` by one over all ranks, in place; returns the replacement of `model`
    itself.

    Raises:
        ValueError: a batch norm of an unknown kind.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and not isinstance(m, SyncBatchNorm)]
    for norm in norms:
        if type(norm).forward not in _KNOWN:
            raise ValueError(
                f"Synchronized batch norm has no form for a {type(norm).__name__}: switch it off, or choose another "
                "backbone."
            )
    new = {norm: SyncBatchNorm(norm) for norm in norms}
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and child in new:
                setattr(parent, name, new[child])
    return new.get(model, model) if isinstance(model, _BatchNorm) else model


_KNOWN = (_BatchNorm.forward, nn.SyncBatchNorm.forward, BatchNormAct2d.forward)


class _Normalize(torch.autograd.Function):
    """(x (B, C, …), weight, bias and shift (C,), ε) → y; mean, variance (C,) and count () over all ranks."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, shift: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        packed = sum_over_ranks(shifted_sums(x, shift))  # (2C + 1,)
        count = packed[-1].clone()
        first, second = (packed[:-1] / count).chunk(2)
        mean, variance = first + shift.to(first.dtype), (second - first * first).clamp(min=0)
        scale, offset = (None if p is None else p.to(mean.dtype) for p in (weight, bias))
        ctx.save_for_backward(x, scale, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, scale, offset, False, 0.0, eps), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, mean, variance, count = ctx.saved_tensors
        inverse = (variance + ctx.eps).rsqrt()
        # The gradients of scale and offset under fixed statistics, Σ(g x̂) and Σg of this rank: one pass.
        _, along, total = torch.ops.aten.native_batch_norm_backward(
            grad, x, scale, mean, variance, mean, inverse, False, ctx.eps, [False, True, True]
        )
        along_all, total_all = (sum_over_ranks(torch.cat((along, total))) / count).chunk(2)
        gradient = input_gradient(grad, x, scale, mean, inverse, along_all, total_all)
        affine = (None, None) if scale is None else (along.to(scale.dtype), total.to(scale.dtype))
        return gradient, *affine, None, None


@torch.library.custom_op("kmax::sum_over_ranks", mutates_args=())
def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of `x` over all ranks, on each of them. An operator of its own, so that compilers trace it."""
    total = x.clone()
    dist.all_reduce(total)
    return total


@sum_over_ranks.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("kmax::shifted_sums", mutates_args=())
def shifted_sums(x: Tensor, shift: Tensor) -> Tensor:
    """(2C + 1,): Σ(x − shift), Σ(x − shift)² and the count of the values of a channel, in at least float32."""
    raised = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(raised, _all_but_channels(x), correction=0)
    return _sums(x, mean, variance, shift)


@shifted_sums.register_kernel("cuda")
def _(x: Tensor, shift: Tensor) -> Tensor:
    mean, inverse = torch.batch_norm_stats(x, _EPS)  # raises half precision itself
    return _sums(x, mean, inverse.pow(-2) - _EPS, shift)


@shifted_sums.register_fake
def _(x: Tensor, shift: Tensor) -> Tensor:
    return x.new_empty(2 * x.shape[1] + 1, dtype=torch.promote_types(x.dtype, torch.float32))


def _sums(x: Tensor, mean: Tensor, variance: Tensor, shift: Tensor) -> Tensor:
    count = mean.new_full((1,), x.numel() // x.shape[1])
    away = mean - shift.to(mean.dtype)
    return torch.cat((count * away, count * (variance + away * away), count))


@torch.library.custom_op("kmax::input_gradient", mutates_args=())
def input_gradient(
    grad: Tensor, x: Tensor, scale: Tensor | None, mean: Tensor, inverse: Tensor, along: Tensor, total: Tensor
) -> Tensor:
    """∂L/∂x, of the shape of `x`, for the means `along` of g x̂ and `total` of g over all values of a channel."""
    shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    factor = inverse if scale is None else inverse * scale
    outer, inner = (factor.view(shape), (-factor * inverse * along).view(shape))
    result = torch.addcmul((grad - total.view(shape)) * outer, x - mean.view(shape), inner)
    return result.to(x.dtype)


@input_gradient.register_kernel("cuda")
def _(
    grad: Tensor, x: Tensor, scale: Tensor | None, mean: Tensor, inverse: Tensor, along: Tensor, total: Tensor
) -> Tensor:
    one = torch.ones(1, dtype=torch.int32, device=x.device)  # the sums are divided by the count already
    return torch.batch_norm_backward_elemt(grad, x, mean, inverse, scale, total, along / inverse, one)


@input_gradient.register_fake
def _(
    grad: Tensor, x: Tensor, scale: Tensor | None, mean: Tensor, inverse: Tensor, along: Tensor, total: Tensor
) -> Tensor:
    return torch.empty_like(x)


def _all_but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]

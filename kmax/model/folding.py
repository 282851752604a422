"""Batch norms folded into the convolutions before them: the same function in evaluation, fewer passes over memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kmax.model.axial_attention import AxisAttention
from kmax.model.layers import ConvNorm

_NUMBERED = tuple((f"conv{i}", f"bn{i}") for i in (1, 2, 3))
_PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    ConvNorm: (("conv", "norm"),),
    AxisAttention: (("qkv", "qkv_norm"),),
    ResNet: _NUMBERED[:1],
    BasicBlock: _NUMBERED,
    Bottleneck: _NUMBERED,
}
"""Convolutions and the norms that follow them directly, by the module that holds both."""
_CONVOLUTIONS, _NORMS = (nn.Conv1d, nn.Conv2d), (nn.BatchNorm1d, nn.BatchNorm2d)


def fold_batch_norms(model: nn.Module) -> int:
    """Fold every batch norm below `model` that directly follows a convolution; in place, and not to be undone.

    A folded norm becomes an identity; the others stay. For evaluation only.

    Returns:
        How many norms were folded.
    """
    assert not model.training, "the statistics of a batch cannot be folded"
    folded = 0
    for parent in list(model.modules()):
        for conv_name, norm_name in _pairs(parent):
            conv = getattr(parent, conv_name, None)
            norm = getattr(parent, norm_name, None)
            # Exact types: a subclass may do more, such as timm's norms with an activation.
            exact = type(norm) in _NORMS
            if exact and isinstance(norm, _NORMS) and isinstance(conv, _CONVOLUTIONS) and norm.running_mean is not None:
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())
                folded += 1
    return folded


def _pairs(parent: nn.Module) -> Iterator[tuple[str, str]]:
    yield from _PAIRS.get(type(parent), ())
    if type(parent) is nn.Sequential:
        yield from pairwise(name for name, _ in parent.named_children())

"""How deeplab2 (TensorFlow) names and lays out the parts that its models are made of, beside our names.

`#` stands for a number of both names, `#+1` for one that TensorFlow counts from 1. Kernels are (height, width, in,
out), kernels along queries (1, in, out).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Layout(NamedTuple):
    """How a value is laid out: `ours` turns their tensor into ours, `theirs` is its inverse."""

    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor], Tensor]


class Entry(NamedTuple):
    """One variable: its name in TensorFlow, our name, and its layout."""

    theirs: str
    ours: str
    layout: Layout


def flat(*shape: int) -> Layout:
    """A vector that TensorFlow keeps in `shape`."""
    return Layout(lambda x: x.flatten(), lambda x: x.reshape(shape))


SAME = Layout(lambda x: x, lambda x: x)
CONV = Layout(lambda x: x.permute(3, 2, 0, 1), lambda x: x.permute(2, 3, 1, 0))
DEPTHWISE = Layout(lambda x: x.permute(2, 3, 0, 1), lambda x: x.permute(2, 3, 0, 1))
QUERY_CONV = Layout(lambda x: x.permute(2, 1, 0), lambda x: x.permute(2, 1, 0))
PIXEL_CONV = Layout(lambda x: x.permute(2, 1, 0)[..., None], lambda x: x[..., 0].permute(2, 1, 0))
DENSE = Layout(lambda x: x.t(), lambda x: x.t())
AXIS_CONV = Layout(lambda x: x.t()[..., None], lambda x: x[..., 0].t())
CENTERS = Layout(lambda x: x[0].t(), lambda x: x.t()[None])
LAYER_SCALE = flat(1, 1, 1, -1)
AXIS_LOGITS = flat(3, 1, -1, 1, 1)
AXIS_OUTPUT = flat(2, 1, 8, 1, -1)
QUERY_OUTPUT = flat(1, 8, 1, -1)
ROLES = ("query", "key", "value")


def scale_and_shift(theirs: str, ours: str, layout: Layout = SAME) -> list[Entry]:
    """The two weights of any norm."""
    return [Entry(f"{theirs}/{a}", f"{ours}.{b}", layout) for a, b in (("gamma", "weight"), ("beta", "bias"))]


def batch_norm(theirs: str, ours: str, layout: Layout = SAME) -> list[Entry]:
    """A batch norm with its running statistics."""
    statistics = (("moving_mean", "running_mean"), ("moving_variance", "running_var"))
    return [
        *scale_and_shift(theirs, ours, layout),
        *(Entry(f"{theirs}/{a}", f"{ours}.{b}", layout) for a, b in statistics),
    ]


def weight_and_bias(theirs: str, ours: str, layout: Layout) -> list[Entry]:
    """A convolution or linear layer with a bias."""
    return [Entry(f"{theirs}/kernel", f"{ours}.weight", layout), Entry(f"{theirs}/bias", f"{ours}.bias", SAME)]


def conv_norm(theirs: str, ours: str, layout: Layout = CONV) -> list[Entry]:
    """A convolution without bias and the batch norm behind it."""
    kernel = Entry(f"{theirs}/_conv/kernel", f"{ours}.conv.weight", layout)
    return [kernel, *batch_norm(f"{theirs}/_batch_norm", f"{ours}.norm")]


def depthwise_norm(theirs: str, ours: str) -> list[Entry]:
    """A depthwise convolution without bias and the batch norm behind it."""
    kernel = Entry(f"{theirs}/_depthwise_conv/depthwise_kernel", f"{ours}.conv.weight", DEPTHWISE)
    return [kernel, *batch_norm(f"{theirs}/_batch_norm", f"{ours}.norm")]


def separable(theirs: str, depthwise: str, pointwise: str) -> list[Entry]:
    """A depthwise convolution and a 1×1 convolution, each with its batch norm."""
    return [*depthwise_norm(f"{theirs}/_depthwise", depthwise), *conv_norm(f"{theirs}/_pointwise", pointwise)]


def axis(theirs: str, ours: str) -> list[Entry]:
    """Attention along one axis: projections, relative positions and three batch norms."""
    tables = (Entry(f"{theirs}/_{a}_rpe/embeddings", f"{ours}.{a}_position.table", SAME) for a in ROLES)
    return [
        Entry(f"{theirs}/qkv_kernel", f"{ours}.qkv.weight", AXIS_CONV),
        *batch_norm(f"{theirs}/_batch_norm_qkv", f"{ours}.qkv_norm"),
        *tables,
        *batch_norm(f"{theirs}/_batch_norm_similarity", f"{ours}.logit_norm", AXIS_LOGITS),
        *batch_norm(f"{theirs}/_batch_norm_retrieved_output", f"{ours}.output_norm", AXIS_OUTPUT),
    ]


def block(theirs: str, ours: str) -> list[Entry]:
    """A pre-activation residual block, of either kind."""
    directions = ("height", "width")
    axes = [axis(f"{theirs}/_attention/_{name}_axis", f"{ours}.spatial.0.{name}") for name in directions]
    return [
        *conv_norm(f"{theirs}/_shortcut", f"{ours}.shortcut"),
        *conv_norm(f"{theirs}/_conv1_bn_act", f"{ours}.reduce"),
        *conv_norm(f"{theirs}/_conv2_bn_act", f"{ours}.spatial"),
        *(entry for entries in axes for entry in entries),
        *conv_norm(f"{theirs}/_conv3_bn", f"{ours}.expand"),
    ]


def head(theirs: str, ours: str) -> list[Entry]:
    """A predictor; `theirs` is the prefix of its variables' names."""
    pixels = f"{theirs}pixel_space_head"
    return [
        *separable(f"{pixels}/conv_block/_conv1_bn_act", f"{ours}.pixel_depthwise", f"{ours}.pixel_hidden"),
        *weight_and_bias(f"{pixels}/final_conv", f"{ours}.pixel_feature.conv", CONV),
        *batch_norm(f"{theirs}pixel_space_feature_batch_norm", f"{ours}.pixel_feature.norm"),
        *conv_norm(f"{theirs}transformer_mask_head", f"{ours}.mask_kernel", QUERY_CONV),
        *weight_and_bias(f"{theirs}transformer_class_head/_conv", f"{ours}.class_logits", QUERY_CONV),
        *batch_norm(f"{theirs}pixel_space_mask_batch_norm", f"{ours}.mask_norm"),
    ]


def semantic_head(atrous: bool) -> list[Entry]:
    """The auxiliary semantic head: two layers, or with `atrous` ASPP and two fusions with earlier features."""
    hidden = "semantic_head.refine" if atrous else "semantic_head.layers"
    last = "semantic_head.logits" if atrous else "semantic_head.layers.2"
    entries = [
        *separable("semantic_head_without_last_layer/_conv1_bn_act", f"{hidden}.0", f"{hidden}.1"),
        *weight_and_bias("semantic_last_layer", last, CONV),
    ]
    if not atrous:
        return entries
    theirs, ours = "semantic_decoder/_aspp", "semantic_head.aspp"
    for i in (1, 2, 3):
        entries += conv_norm(f"{theirs}/_aspp_conv{i}/_conv_bn_act", f"{ours}.branches.{i}")
    entries += conv_norm(f"{theirs}/_conv_bn_act", f"{ours}.branches.0")
    entries += conv_norm(f"{theirs}/_aspp_pool/_conv_bn_act", f"{ours}.pool")
    entries += conv_norm(f"{theirs}/_proj_conv_bn_act", f"{ours}.project")
    for i in (0, 1):
        fusion = f"semantic_decoder/_fusion_conv{i + 1}/_conv1_bn_act"
        entries += separable(fusion, f"semantic_head.fuse.{i}.0", f"semantic_head.fuse.{i}.1")
        entries += conv_norm(f"semantic_decoder/_low_level_conv{i + 1}", f"semantic_head.project.{i}")
    return entries

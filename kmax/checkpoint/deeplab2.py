"""Published TensorFlow checkpoints (deeplab2) ↔ our names, layouts and order of classes.

The table pairs whole names; `#` stands for a number that both have, `#+1` for one that TensorFlow counts from 1. A
variable's layout follows from its place: kernels are (height, width, in, out), kernels along queries (1, in, out).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kmax.checkpoint.names import NameTable


class Layout(NamedTuple):
    """How a value is laid out: `ours` makes our tensor of theirs, `theirs` is its inverse."""

    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor], Tensor]


class Entry(NamedTuple):
    """One variable: its name there, its name here, and its layout."""

    theirs: str
    ours: str
    layout: Layout


def _flat(*shape: int) -> Layout:
    """A vector that TensorFlow keeps in `shape`."""
    return Layout(lambda x: x.flatten(), lambda x: x.reshape(shape))


SAME = Layout(lambda x: x, lambda x: x)
CONV = Layout(lambda x: x.permute(3, 2, 0, 1), lambda x: x.permute(2, 3, 1, 0))
DEPTHWISE = Layout(lambda x: x.permute(2, 3, 0, 1), lambda x: x.permute(2, 3, 0, 1))
QUERY_CONV = Layout(lambda x: x.permute(2, 1, 0), lambda x: x.permute(2, 1, 0))
PIXEL_CONV = Layout(lambda x: x.permute(2, 1, 0)[..., None], lambda x: x[..., 0].permute(2, 1, 0))
DENSE = Layout(lambda x: x.t(), lambda x: x.t())
AXIS_CONV = Layout(lambda x: x.t()[..., None], lambda x: x[..., 0].t())
CENTRES = Layout(lambda x: x[0].t(), lambda x: x.t()[None])
LAYER_SCALE = _flat(1, 1, 1, -1)
AXIS_LOGITS = _flat(3, 1, -1, 1, 1)
AXIS_OUTPUT = _flat(2, 1, 8, 1, -1)
QUERY_OUTPUT = _flat(1, 8, 1, -1)
_ROLES = ("query", "key", "value")


def _scale_and_shift(theirs: str, ours: str, layout: Layout = SAME) -> list[Entry]:
    return [Entry(f"{theirs}/{a}", f"{ours}.{b}", layout) for a, b in (("gamma", "weight"), ("beta", "bias"))]


def _batch_norm(theirs: str, ours: str, layout: Layout = SAME) -> list[Entry]:
    statistics = (("moving_mean", "running_mean"), ("moving_variance", "running_var"))
    return [
        *_scale_and_shift(theirs, ours, layout),
        *(Entry(f"{theirs}/{a}", f"{ours}.{b}", layout) for a, b in statistics),
    ]


def _weight_and_bias(theirs: str, ours: str, layout: Layout) -> list[Entry]:
    return [Entry(f"{theirs}/kernel", f"{ours}.weight", layout), Entry(f"{theirs}/bias", f"{ours}.bias", SAME)]


def _conv_norm(theirs: str, ours: str, layout: Layout = CONV) -> list[Entry]:
    kernel = Entry(f"{theirs}/_conv/kernel", f"{ours}.conv.weight", layout)
    return [kernel, *_batch_norm(f"{theirs}/_batch_norm", f"{ours}.norm")]


def _depthwise_norm(theirs: str, ours: str) -> list[Entry]:
    kernel = Entry(f"{theirs}/_depthwise_conv/depthwise_kernel", f"{ours}.conv.weight", DEPTHWISE)
    return [kernel, *_batch_norm(f"{theirs}/_batch_norm", f"{ours}.norm")]


def _separable(theirs: str, depthwise: str, pointwise: str) -> list[Entry]:
    return [*_depthwise_norm(f"{theirs}/_depthwise", depthwise), *_conv_norm(f"{theirs}/_pointwise", pointwise)]


def _axis(theirs: str, ours: str) -> list[Entry]:
    tables = (Entry(f"{theirs}/_{a}_rpe/embeddings", f"{ours}.{a}_position.table", SAME) for a in _ROLES)
    return [
        Entry(f"{theirs}/qkv_kernel", f"{ours}.qkv.weight", AXIS_CONV),
        *_batch_norm(f"{theirs}/_batch_norm_qkv", f"{ours}.qkv_norm"),
        *tables,
        *_batch_norm(f"{theirs}/_batch_norm_similarity", f"{ours}.logit_norm", AXIS_LOGITS),
        *_batch_norm(f"{theirs}/_batch_norm_retrieved_output", f"{ours}.output_norm", AXIS_OUTPUT),
    ]


def _block(theirs: str, ours: str) -> list[Entry]:
    """A pre-activation residual block, of either kind."""
    axes = [_axis(f"{theirs}/_attention/_{axis}_axis", f"{ours}.spatial.0.{axis}") for axis in ("height", "width")]
    return [
        *_conv_norm(f"{theirs}/_shortcut", f"{ours}.shortcut"),
        *_conv_norm(f"{theirs}/_conv1_bn_act", f"{ours}.reduce"),
        *_conv_norm(f"{theirs}/_conv2_bn_act", f"{ours}.spatial"),
        *(entry for axis in axes for entry in axis),
        *_conv_norm(f"{theirs}/_conv3_bn", f"{ours}.expand"),
    ]


def _resnet() -> list[Entry]:
    block, body = "encoder/_stage#+1/_block#+1", "backbone.body.layer#.#"
    names = [("_shortcut", "downsample.0", "downsample.1")]
    names += [(f"_conv{i}_bn{'_act' if i < 3 else ''}", f"conv{i}", f"bn{i}") for i in (1, 2, 3)]
    pairs = [("encoder/_stem", "backbone.body.conv1", "backbone.body.bn1")]
    pairs += [(f"{block}/{theirs}", f"{body}.{conv}", f"{body}.{norm}") for theirs, conv, norm in names]
    entries = []
    for theirs, conv, norm in pairs:
        entries += [
            Entry(f"{theirs}/_conv/kernel", f"{conv}.weight", CONV),
            *_batch_norm(f"{theirs}/_batch_norm", norm),
        ]
    return entries


def _convnext() -> list[Entry]:
    down, block, body = "encoder/downsample_layers", "encoder/stages/#/layer_with_weights-#", "backbone.body"
    entries = [
        *_weight_and_bias(f"{down}/0/layer_with_weights-0", f"{body}.stem.0", CONV),
        *_scale_and_shift(f"{down}/0/layer_with_weights-1", f"{body}.stem.1"),
    ]
    for i in (1, 2, 3):
        entries += _scale_and_shift(f"{down}/{i}/layer_with_weights-0", f"{body}.stages.{i}.downsample.0")
        entries += _weight_and_bias(f"{down}/{i}/layer_with_weights-1", f"{body}.stages.{i}.downsample.1", CONV)
    ours = f"{body}.stages.#.blocks.#"
    return [
        *entries,
        Entry(f"{block}/layer_scale", f"{ours}.gamma", LAYER_SCALE),
        *_weight_and_bias(f"{block}/depthwise_conv", f"{ours}.conv_dw", CONV),
        *_scale_and_shift(f"{block}/norm", f"{ours}.norm"),
        *_weight_and_bias(f"{block}/pointwise_conv1", f"{ours}.mlp.fc1", DENSE),
        *_weight_and_bias(f"{block}/pointwise_conv2", f"{ours}.mlp.fc2", DENSE),
    ]


def _max_s() -> list[Entry]:
    stem = ("_conv1_bn_act", "_conv2_bn_act", "_conv3_bn")
    entries = [e for i, theirs in enumerate(stem) for e in _conv_norm(f"encoder/_stem/{theirs}", f"backbone.stem.{i}")]
    return [*entries, *_block("encoder/_stage#+2/_block#+1", "backbone.stages.#.#")]


def _pixel_decoder() -> list[Entry]:
    fuse = "pixel_decoder/_skip_connections/#/_resized_conv_bn"
    return [
        *_scale_and_shift("pixel_decoder/_backbone_norms/#", "pixel_decoder.norms.#"),
        *_conv_norm(f"{fuse}1", "pixel_decoder.fuses.#.coarse"),
        *_conv_norm(f"{fuse}2", "pixel_decoder.fuses.#.fine"),
        *_block("pixel_decoder/_stages/#/_block#+1", "pixel_decoder.stages.#.#"),
    ]


def _head(theirs: str, ours: str) -> list[Entry]:
    """A predictor; `theirs` is what its variables' names begin with."""
    pixels = f"{theirs}pixel_space_head"
    return [
        *_separable(f"{pixels}/conv_block/_conv1_bn_act", f"{ours}.pixel_depthwise", f"{ours}.pixel_hidden"),
        *_weight_and_bias(f"{pixels}/final_conv", f"{ours}.pixel_feature.conv", CONV),
        *_batch_norm(f"{theirs}pixel_space_feature_batch_norm", f"{ours}.pixel_feature.norm"),
        *_conv_norm(f"{theirs}transformer_mask_head", f"{ours}.mask_kernel", QUERY_CONV),
        *_weight_and_bias(f"{theirs}transformer_class_head/_conv", f"{ours}.class_logits", QUERY_CONV),
        *_batch_norm(f"{theirs}pixel_space_mask_batch_norm", f"{ours}.mask_norm"),
    ]


def _transformer_decoder() -> list[Entry]:
    layer, ours = "transformer_decoder/_kmax_decoder/#/_block1_transformer", "transformer_decoder.layers.#"
    convs = (
        ("_pixel_conv1_bn_act", "pixel_in", PIXEL_CONV),
        ("_pixel_v_conv_bn", "value", PIXEL_CONV),
        ("_memory_conv1_bn_act", "query_in", QUERY_CONV),
        ("_kmeans_memory_conv3_bn", "update_out", QUERY_CONV),
        ("_memory_qkv_conv_bn", "qkv", QUERY_CONV),
        ("_memory_conv3_bn", "attention_out", QUERY_CONV),
        ("_memory_ffn_conv1_bn_act", "ffn_in", QUERY_CONV),
        ("_memory_ffn_conv2_bn", "ffn_out", QUERY_CONV),
    )
    attention, own = f"{layer}/_memory_attention", f"{ours}.self_attention"
    return [
        Entry("transformer_decoder/cluster_centers", "transformer_decoder.centres", CENTRES),
        *(e for a, b, layout in convs for e in _conv_norm(f"{layer}/{a}", f"{ours}.{b}", layout)),
        *_batch_norm(f"{layer}/_kmeans_memory_batch_norm_retrieved_value", f"{ours}.update_norm"),
        *_batch_norm(f"{attention}/_batch_norm_similarity", f"{own}.logit_norm"),
        *_batch_norm(f"{attention}/_batch_norm_retrieved_value", f"{own}.output_norm", QUERY_OUTPUT),
        *_head(f"{layer}/_auxiliary_clustering_predictor/_", f"{ours}.predictor"),
        *(
            e
            for kind in ("class", "mask")
            for e in _conv_norm(
                f"transformer_decoder/_{kind}_embedding_projection",
                f"transformer_decoder.{kind}_embedding",
                QUERY_CONV,
            )
        ),
        *_head("", "transformer_decoder.predictor"),
    ]


def _semantic_head(atrous: bool) -> list[Entry]:
    hidden = "semantic_head.refine" if atrous else "semantic_head.layers"
    last = "semantic_head.logits" if atrous else "semantic_head.layers.2"
    entries = [
        *_separable("semantic_head_without_last_layer/_conv1_bn_act", f"{hidden}.0", f"{hidden}.1"),
        *_weight_and_bias("semantic_last_layer", last, CONV),
    ]
    if not atrous:
        return entries
    theirs, ours = "semantic_decoder/_aspp", "semantic_head.aspp"
    for i in (1, 2, 3):
        entries += _conv_norm(f"{theirs}/_aspp_conv{i}/_conv_bn_act", f"{ours}.branches.{i}")
    entries += _conv_norm(f"{theirs}/_conv_bn_act", f"{ours}.branches.0")
    entries += _conv_norm(f"{theirs}/_aspp_pool/_conv_bn_act", f"{ours}.pool")
    entries += _conv_norm(f"{theirs}/_proj_conv_bn_act", f"{ours}.project")
    for i in (0, 1):
        fusion = f"semantic_decoder/_fusion_conv{i + 1}/_conv1_bn_act"
        entries += _separable(fusion, f"semantic_head.fuse.{i}.0", f"semantic_head.fuse.{i}.1")
        entries += _conv_norm(f"semantic_decoder/_low_level_conv{i + 1}", f"semantic_head.project.{i}")
    return entries


BACKBONES: dict[str, Callable[[], list[Entry]]] = {"resnet": _resnet, "convnext": _convnext, "max_s": _max_s}
_CLASS_HEADS = (".class_logits.weight", ".class_logits.bias")
_COUNTER = "num_batches_tracked"


class Variables:
    """The table of one kind of model.

    Args:
        backbone: a key of BACKBONES.
        atrous: whether the semantic head has an ASPP.
    """

    def __init__(self, backbone: str, atrous: bool) -> None:
        entries = [*BACKBONES[backbone](), *_pixel_decoder(), *_transformer_decoder(), *_semantic_head(atrous)]
        self.names = NameTable(((entry.theirs, entry.ours) for entry in entries), whole=True)
        self._layouts = [entry.layout for entry in entries]

    @classmethod
    def of_theirs(cls, names: Iterable[str]) -> Variables:
        """The table for a checkpoint's variables."""
        names = list(names)
        return cls(_their_backbone(names), any(name.startswith("semantic_decoder/") for name in names))

    @classmethod
    def of_ours(cls, names: Iterable[str]) -> Variables:
        """The table for the entries of a model of ours."""
        names = list(names)
        kinds = {"backbone.stem.": "max_s", "backbone.body.stem.": "convnext"}
        kind = next((kind for start, kind in kinds.items() if any(name.startswith(start) for name in names)), "resnet")
        return cls(kind, any(name.startswith("semantic_head.aspp.") for name in names))

    def layout(self, theirs: str) -> Layout:
        """The layout of a variable that the table knows."""
        return self._layouts[self.names.position(theirs)]


def _their_backbone(names: list[str]) -> str:
    if any(name.startswith("encoder/_stem/_conv1_bn_act/") for name in names):
        return "max_s"
    return "convnext" if any(name.startswith("encoder/downsample_layers/") for name in names) else "resnet"


def class_order(is_thing: Sequence[bool]) -> list[int]:
    """Our label by position in TensorFlow's class head: things first, then stuff, each by train id; void last."""
    labels = range(len(is_thing))
    return [*(k for k in labels if is_thing[k]), *(k for k in labels if not is_thing[k]), len(is_thing)]


def from_deeplab2(variables: Mapping[str, Any], is_thing: Sequence[bool]) -> dict[str, Tensor]:
    """A published TensorFlow checkpoint's variables under our names, in our layouts and order of classes.

    Args:
        variables: NumPy or torch values by name, without what belongs to the optimizer.
        is_thing: things (True) and stuff by label, of the dataset that the checkpoint was trained on.

    Raises:
        ValueError: a variable that the table does not know, or a class head of another size.
    """
    table = Variables.of_theirs(variables)
    unknown = [name for name in variables if table.names.ours(name) is None]
    if unknown:
        raise ValueError(
            f"{len(unknown)} variables are not of a published TensorFlow kMaX-DeepLab, the first is {unknown[0]!r}: "
            "is this another model's checkpoint?"
        )
    order = torch.tensor(class_order(is_thing)).argsort()
    state = {}
    for theirs, value in variables.items():
        ours, tensor = str(table.names.ours(theirs)), torch.as_tensor(value)
        try:
            tensor = table.layout(theirs).ours(tensor)
            state[ours] = _ordered(tensor, order, ours).contiguous()
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"The variable {theirs} has the wrong shape {tuple(tensor.shape)}: {error}.") from error
    return {**state, **batch_counters(state)}


def to_deeplab2(state_dict: Mapping[str, Tensor], is_thing: Sequence[bool]) -> dict[str, np.ndarray]:
    """The inverse of `from_deeplab2`, as NumPy arrays.

    Raises:
        ValueError: an entry has no counterpart in the published models.
    """
    entries = {name: value for name, value in state_dict.items() if not name.endswith(_COUNTER)}
    table, order = Variables.of_ours(entries), torch.tensor(class_order(is_thing))
    variables = {}
    for ours, value in entries.items():
        theirs = table.names.theirs(ours)
        if theirs is None:
            raise ValueError(f"{ours} has no counterpart in the published TensorFlow models.")
        variables[theirs] = table.layout(theirs).theirs(_ordered(value, order, ours)).contiguous().numpy()
    return variables


def _ordered(value: Tensor, order: Tensor, ours: str) -> Tensor:
    """The rows of a class head in another order; other entries as they are."""
    if not ours.endswith(_CLASS_HEADS):
        return value
    if len(value) != len(order):
        raise ValueError(f"{ours} has {len(value)} rows, but the dataset has {len(order) - 1} classes and void.")
    return value[order]


def batch_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """PyTorch's batch norms also count batches; TensorFlow's don't."""
    means = (name for name in state if name.endswith(".running_mean"))
    return {name.removesuffix("running_mean") + _COUNTER: torch.tensor(0) for name in means}

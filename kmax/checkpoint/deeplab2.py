"""Published TensorFlow checkpoints (deeplab2) of both families ↔ our names, layouts and order of classes.

The table pairs whole names; `#` stands for a number that both have, `#+1` for one that TensorFlow counts from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from kmax.checkpoint.deeplab2_max import MEMORY, MEMORY_ALIAS, max_backbone, max_deeplab, variant_of
from kmax.checkpoint.names import NameTable
from kmax.checkpoint.tensorflow_parts import (
    CENTERS,
    CONV,
    DENSE,
    LAYER_SCALE,
    PIXEL_CONV,
    QUERY_CONV,
    QUERY_OUTPUT,
    Entry,
    Layout,
    batch_norm,
    block,
    conv_norm,
    head,
    scale_and_shift,
    semantic_head,
    weight_and_bias,
)


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
            *batch_norm(f"{theirs}/_batch_norm", norm),
        ]
    return entries


def _convnext() -> list[Entry]:
    down, block, body = "encoder/downsample_layers", "encoder/stages/#/layer_with_weights-#", "backbone.body"
    entries = [
        *weight_and_bias(f"{down}/0/layer_with_weights-0", f"{body}.stem.0", CONV),
        *scale_and_shift(f"{down}/0/layer_with_weights-1", f"{body}.stem.1"),
    ]
    for i in (1, 2, 3):
        entries += scale_and_shift(f"{down}/{i}/layer_with_weights-0", f"{body}.stages.{i}.downsample.0")
        entries += weight_and_bias(f"{down}/{i}/layer_with_weights-1", f"{body}.stages.{i}.downsample.1", CONV)
    ours = f"{body}.stages.#.blocks.#"
    return [
        *entries,
        Entry(f"{block}/layer_scale", f"{ours}.gamma", LAYER_SCALE),
        *weight_and_bias(f"{block}/depthwise_conv", f"{ours}.conv_dw", CONV),
        *scale_and_shift(f"{block}/norm", f"{ours}.norm"),
        *weight_and_bias(f"{block}/pointwise_conv1", f"{ours}.mlp.fc1", DENSE),
        *weight_and_bias(f"{block}/pointwise_conv2", f"{ours}.mlp.fc2", DENSE),
    ]


def _max_s() -> list[Entry]:
    stem = ("_conv1_bn_act", "_conv2_bn_act", "_conv3_bn")
    entries = [e for i, theirs in enumerate(stem) for e in conv_norm(f"encoder/_stem/{theirs}", f"backbone.stem.{i}")]
    return [*entries, *block("encoder/_stage#+2/_block#+1", "backbone.stages.#.#")]


def _pixel_decoder() -> list[Entry]:
    fuse = "pixel_decoder/_skip_connections/#/_resized_conv_bn"
    return [
        *scale_and_shift("pixel_decoder/_backbone_norms/#", "pixel_decoder.norms.#"),
        *conv_norm(f"{fuse}1", "pixel_decoder.fuses.#.coarse"),
        *conv_norm(f"{fuse}2", "pixel_decoder.fuses.#.fine"),
        *block("pixel_decoder/_stages/#/_block#+1", "pixel_decoder.stages.#.#"),
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
        Entry("transformer_decoder/cluster_centers", "transformer_decoder.centres", CENTERS),
        *(e for a, b, layout in convs for e in conv_norm(f"{layer}/{a}", f"{ours}.{b}", layout)),
        *batch_norm(f"{layer}/_kmeans_memory_batch_norm_retrieved_value", f"{ours}.update_norm"),
        *batch_norm(f"{attention}/_batch_norm_similarity", f"{own}.logit_norm"),
        *batch_norm(f"{attention}/_batch_norm_retrieved_value", f"{own}.output_norm", QUERY_OUTPUT),
        *head(f"{layer}/_auxiliary_clustering_predictor/_", f"{ours}.predictor"),
        *(
            e
            for kind in ("class", "mask")
            for e in conv_norm(
                f"transformer_decoder/_{kind}_embedding_projection",
                f"transformer_decoder.{kind}_embedding",
                QUERY_CONV,
            )
        ),
        *head("", "transformer_decoder.predictor"),
    ]


BACKBONES: dict[str, Callable[[], list[Entry]]] = {"resnet": _resnet, "convnext": _convnext, "max_s": _max_s}
_CLASS_HEADS = (".class_logits.weight", ".class_logits.bias")
_SEMANTIC_HEADS = ("semantic_head.logits.", "semantic_head.layers.2.")
_COUNTER = "num_batches_tracked"


class Variables:
    """The table of one kind of model, or of its backbone alone."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.names = NameTable(((entry.theirs, entry.ours) for entry in entries), whole=True)
        self._layouts = [entry.layout for entry in entries]

    @classmethod
    def of_kmax(cls, backbone: str, atrous: bool) -> Variables:
        """The table of kMaX-DeepLab: `backbone` is a key of BACKBONES; `atrous`: its semantic head has an ASPP."""
        return cls([*BACKBONES[backbone](), *_pixel_decoder(), *_transformer_decoder(), *semantic_head(atrous)])

    @classmethod
    def of_theirs(cls, names: Iterable[str]) -> Variables:
        """The table for a checkpoint's variables."""
        names = list(names)
        if is_max_deeplab(names):
            return cls(max_deeplab(variant_of(names)))
        return cls.of_kmax(_their_backbone(names), any(name.startswith("semantic_decoder/") for name in names))

    @classmethod
    def of_ours(cls, names: Iterable[str]) -> Variables:
        """The table for the entries of a model of ours."""
        names = list(names)
        if "memory" in names:
            return cls(max_deeplab("s" if "backbone.stem.2.conv.weight" in names else "l"))
        kinds = {"backbone.stem.": "max_s", "backbone.body.stem.": "convnext"}
        kind = next((kind for start, kind in kinds.items() if any(name.startswith(start) for name in names)), "resnet")
        return cls.of_kmax(kind, any(name.startswith("semantic_head.aspp.") for name in names))

    @classmethod
    def of_encoder(cls, names: Iterable[str], dual_path: bool) -> Variables:
        """The table for a checkpoint of ImageNet weights, for the backbone of MaX-DeepLab (`dual_path`) or kMaX's."""
        names = list(names)
        return cls(max_backbone(variant_of(names)) if dual_path else BACKBONES[_their_backbone(names)]())

    def layout(self, theirs: str) -> Layout:
        """The layout of a variable that the table knows."""
        return self._layouts[self.names.position(theirs)]


def is_max_deeplab(names: Iterable[str]) -> bool:
    """Whether variables belong to a MaX-DeepLab."""
    return bool({MEMORY, MEMORY_ALIAS} & set(names))


def _their_backbone(names: list[str]) -> str:
    if any(name.startswith("encoder/_stem/_conv1_bn_act/") for name in names):
        return "max_s"
    return "convnext" if any(name.startswith("encoder/downsample_layers/") for name in names) else "resnet"


def class_order(is_thing: Sequence[bool]) -> list[int]:
    """Our label by position in TensorFlow's class head: things first, then stuff, each by train id; void last."""
    labels = range(len(is_thing))
    return [*(k for k in labels if is_thing[k]), *(k for k in labels if not is_thing[k]), len(is_thing)]


def from_deeplab2(variables: Mapping[str, object], is_thing: Sequence[bool]) -> dict[str, Tensor]:
    """A published TensorFlow checkpoint's variables under our names, in our layouts and order of classes.

    Args:
        variables: NumPy or torch values by name, without those of the optimizer.
        is_thing: things (True) and stuff by label, of the dataset that the checkpoint was trained on.

    Raises:
        ValueError: a variable that the table does not know, or a class head of another size.
    """
    variables = {MEMORY if name == MEMORY_ALIAS else name: value for name, value in variables.items()}
    table = Variables.of_theirs(variables)
    unknown = [name for name in variables if table.names.ours(name) is None]
    if unknown:
        raise ValueError(
            f"{len(unknown)} variables belong to no published kMaX- or MaX-DeepLab, the first is {unknown[0]!r}: "
            "is this another model's checkpoint?"
        )
    order = torch.tensor(class_order(is_thing)).argsort()
    state = {}
    for theirs, value in variables.items():
        ours, tensor = str(table.names.ours(theirs)), torch.as_tensor(value)
        try:
            tensor = table.layout(theirs).ours(tensor)
            state[ours] = _ordered(tensor, order, ours, -1).contiguous()
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
        variables[theirs] = table.layout(theirs).theirs(_ordered(value, order, ours, 1)).contiguous().numpy()
    return variables


def _ordered(value: Tensor, order: Tensor, ours: str, void: int) -> Tensor:
    """The rows of a head in another order; other entries unchanged.

    Rows of a class head are reordered by `order`. Rows of a semantic head with void (one more than classes) are rolled
    by `void`: −1 from theirs, where void is the first channel, to ours, where it is the last; 1 back.
    """
    if ours.startswith(_SEMANTIC_HEADS):
        return value.roll(void, 0) if len(value) == len(order) else value
    if not ours.endswith(_CLASS_HEADS):
        return value
    if len(value) != len(order):
        raise ValueError(f"{ours} has {len(value)} rows, but the dataset has {len(order) - 1} classes and void.")
    return value[order]


def batch_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The counters of batches, which PyTorch's batch norms have and TensorFlow's do not."""
    means = (name for name in state if name.endswith(".running_mean"))
    return {name.removesuffix("running_mean") + _COUNTER: torch.tensor(0) for name in means}

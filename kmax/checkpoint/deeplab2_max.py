"""MaX-DeepLab's variables in published TensorFlow checkpoints (deeplab2), beside our names.

TensorFlow numbers stages and decoder stages by themselves; we number the steps of the whole network.
"""

from __future__ import annotations

from collections.abc import Iterable

from kmax.checkpoint.tensorflow_parts import (
    CENTERS,
    PIXEL_CONV,
    QUERY_CONV,
    QUERY_OUTPUT,
    Entry,
    batch_norm,
    block,
    conv_norm,
    head,
    semantic_head,
)

MEMORY = "encoder/memory_feature"
MEMORY_ALIAS = "encoder/_memory_feature"
"""Another name of the memory, in some checkpoints."""
_BACKBONE_STEPS = {
    "s": ("_stage2", "_stage3", "_stage4", "_stage5"),
    "l": tuple(f"_stage{i}" for i in range(1, 6)) + tuple(f"_decoder_stage{i}" for i in range(1, 5)),
}
_DECODER_STEPS = {
    "s": ("_stage5_extra", "_decoder_stage1_extra", "_decoder_stage2_extra"),
    "l": tuple(f"_decoder_stage{i}_extra" for i in range(4, 11)),
}
_STEMS = {"s": ("/_conv1_bn_act", "/_conv2_bn_act", "/_conv3_bn"), "l": ("",)}
_NOT_BASIC = ("_stage5", "_decoder_stage4", "_decoder_stage4_extra", "_decoder_stage8_extra")
"""Steps of L without blocks of two 3×3 convolutions."""


def variant_of(names: Iterable[str]) -> str:
    """The published network that variables belong to: s or l."""
    return "s" if any(name.startswith("encoder/_stem/_conv1_bn_act/") for name in names) else "l"


def max_backbone(variant: str) -> list[Entry]:
    """The entries of the part that ImageNet weights fill."""
    stems = enumerate(_STEMS[variant])
    entries = [entry for i, theirs in stems for entry in conv_norm(f"encoder/_stem{theirs}", f"backbone.stem.{i}")]
    for i, name in enumerate(_BACKBONE_STEPS[variant]):
        entries += _step(variant, name, f"backbone.steps.{i}")
    return entries


def max_deeplab(variant: str) -> list[Entry]:
    """The entries of the whole network."""
    entries = [*max_backbone(variant), Entry(MEMORY, "memory", CENTERS)]
    for i, name in enumerate(_DECODER_STEPS[variant]):
        entries += _step(variant, name, f"decoder.{i}")
    for i, name in enumerate((*_BACKBONE_STEPS[variant], *_DECODER_STEPS[variant])):
        entries += _dual_path(f"encoder/{name}/_block#+1_transformer", f"dual_paths.{i}.#")
    for kind in ("class", "mask"):
        entries += conv_norm(f"encoder/_{kind}_feature_extra", f"{kind}_embedding", QUERY_CONV)
    return [*entries, *head("", "predictor"), *semantic_head(atrous=variant == "s")]


def _step(variant: str, name: str, ours: str) -> list[Entry]:
    """The entries of a step: its fusion, its basic blocks if there are any, and the other blocks."""
    fuse, blocks = f"encoder/{name}_resized_fuse", f"encoder/{name}/_block#+1"
    entries = []
    if name.startswith("_decoder"):
        strided = variant == "l" and name.removesuffix("_extra") in tuple(f"_decoder_stage{i}" for i in (3, 4, 7, 8))
        entries += conv_norm(f"{fuse}/_{'strided' if strided else 'resized'}_conv_bn1", f"{ours}.fuse.project")
    if variant == "s" or name in _NOT_BASIC:
        return [*entries, *block(blocks, f"{ours}.blocks.#")]
    if name == "_stage4":  # one basic block, then axial ones
        return [*entries, *_basic("encoder/_stage4/_block1", f"{ours}.blocks.0"), *block(blocks, f"{ours}.blocks.#")]
    return [*entries, *_basic(blocks, f"{ours}.blocks.#")]


def _basic(theirs: str, ours: str) -> list[Entry]:
    """A pre-activation residual block of two 3×3 convolutions."""
    names = (("_shortcut", "shortcut"), ("_conv1_bn_act", "spatial"), ("_conv2_bn", "expand"))
    return [entry for a, b in names for entry in conv_norm(f"{theirs}/{a}", f"{ours}.{b}")]


def _dual_path(theirs: str, ours: str) -> list[Entry]:
    convs = (
        ("_memory_conv1_bn_act", "memory_in", QUERY_CONV),
        ("_memory_qkv_conv_bn", "memory_qkv", QUERY_CONV),
        ("_memory_conv3_bn", "memory_out", QUERY_CONV),
        ("_memory_ffn_conv1_bn_act", "ffn_in", QUERY_CONV),
        ("_memory_ffn_conv2_bn", "ffn_out", QUERY_CONV),
        ("_pixel_conv1_bn_act", "pixel_in", PIXEL_CONV),
        ("_pixel_qkv_conv_bn", "pixel_qkv", PIXEL_CONV),
        ("_pixel_conv3_bn", "pixel_out", PIXEL_CONV),
    )
    entries = [entry for a, b, layout in convs for entry in conv_norm(f"{theirs}/{a}", f"{ours}.{b}", layout)]
    for path in ("memory", "pixel"):
        attention, own = f"{theirs}/_{path}_attention", f"{ours}.{path}_attention"
        entries += batch_norm(f"{attention}/_batch_norm_similarity", f"{own}.logit_norm")
        entries += batch_norm(f"{attention}/_batch_norm_retrieved_value", f"{own}.output_norm", QUERY_OUTPUT)
    return entries

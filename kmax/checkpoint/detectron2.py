"""Published PyTorch checkpoints (for Detectron2) ↔ our names.

The tables pair prefixes of names, theirs and ours; `#` stands for a number that both have. Their spelling occurs only
in this file.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from kmax.checkpoint.names import NameTable, describe_mismatch

Table = tuple[tuple[str, str], ...]

_RESNET: Table = (
    ("backbone.stem.conv1.norm.", "backbone.body.bn1."),
    ("backbone.stem.conv1.", "backbone.body.conv1."),
    *(
        (f"backbone.res{stage + 1}.#.{theirs}.", f"backbone.body.layer{stage}.#.{ours}.")
        for stage in (1, 2, 3, 4)
        for theirs, ours in (
            ("shortcut.norm", "downsample.1"),
            ("shortcut", "downsample.0"),
            *((f"conv{i}.norm", f"bn{i}") for i in (1, 2, 3)),
            *((f"conv{i}", f"conv{i}") for i in (1, 2, 3)),
        )
    ),
)
_CONVNEXT: Table = (
    ("backbone.downsample_layers.0.#.", "backbone.body.stem.#."),
    *((f"backbone.downsample_layers.{i}.#.", f"backbone.body.stages.{i}.downsample.#.") for i in (1, 2, 3)),
    *(
        (f"backbone.stages.#.#.{theirs}", f"backbone.body.stages.#.blocks.#.{ours}")
        for theirs, ours in (
            ("gamma", "gamma"),
            ("dwconv.", "conv_dw."),
            ("norm.", "norm."),
            ("pwconv1.", "mlp.fc1."),
            ("pwconv2.", "mlp.fc2."),
        )
    ),
)
_AXIS: Table = (
    ("qkv_transform.conv.", "qkv."),
    ("_batch_norm_qkv.", "qkv_norm."),
    ("_query_rpe._embeddings.weight", "query_position.table"),
    ("_key_rpe._embeddings.weight", "key_position.table"),
    ("_value_rpe._embeddings.weight", "value_position.table"),
    ("_batch_norm_similarity.", "logit_norm."),
    ("_batch_norm_retrieved_output.", "output_norm."),
)
_PIXEL_DECODER: Table = (
    ("_in_norms.#.", "norms.#."),
    ("_resized_fuses.#._conv_bn_low.", "fuses.#.coarse."),
    ("_resized_fuses.#._conv_bn_high.", "fuses.#.fine."),
    ("_stages.#._blocks.#._shortcut.", "stages.#.#.shortcut."),
    ("_stages.#._blocks.#._conv1_bn_act.", "stages.#.#.reduce."),
    ("_stages.#._blocks.#._conv3_bn.", "stages.#.#.expand."),
    *(
        (f"_stages.#._blocks.#._attention._{axis}_axis.{theirs}", f"stages.#.#.spatial.0.{axis}.{ours}")
        for axis in ("height", "width")
        for theirs, ours in _AXIS
    ),
    ("_stages.#._blocks.#._conv2_bn_act.", "stages.#.#.spatial."),
)
_HEAD: Table = (
    ("_pixel_space_head_conv0bnact.", "pixel_depthwise."),
    ("_pixel_space_head_conv1bnact.", "pixel_hidden."),
    ("_pixel_space_head_last_convbn.", "pixel_feature."),
    ("_transformer_mask_head.", "mask_kernel."),
    ("_transformer_class_head.conv.", "class_logits."),
    ("_pixel_space_mask_batch_norm.", "mask_norm."),
)
_LAYER: Table = (
    ("_pixel_conv1_bn_act.", "pixel_in."),
    ("_query_conv1_bn_act.", "query_in."),
    ("_pixel_v_conv_bn.", "value."),
    *((f"_predcitor.{theirs}", f"predictor.{ours}") for theirs, ours in _HEAD),
    ("_kmeans_query_batch_norm_retrieved_value.", "update_norm."),
    ("_kmeans_query_conv3_bn.", "update_out."),
    ("_query_qkv_conv_bn.", "qkv."),
    ("_query_self_attention._batch_norm_similarity.", "self_attention.logit_norm."),
    ("_query_self_attention._batch_norm_retrieved_value.", "self_attention.output_norm."),
    ("_query_conv3_bn.", "attention_out."),
    ("_query_ffn_conv1_bn_act.", "ffn_in."),
    ("_query_ffn_conv2_bn.", "ffn_out."),
)
_TRANSFORMER_DECODER: Table = (
    ("_cluster_centers.weight", "centres"),
    ("_class_embedding_projection.", "class_embedding."),
    ("_mask_embedding_projection.", "mask_embedding."),
    *((f"_predcitor.{theirs}", f"predictor.{ours}") for theirs, ours in _HEAD),
    *((f"_kmax_transformer_layers.#.{theirs}", f"layers.#.{ours}") for theirs, ours in _LAYER),
)
_ATROUS_HEAD: Table = (
    *((f"_aspp._aspp_conv{i}.", f"aspp.branches.{i}.") for i in range(4)),
    ("_aspp._aspp_pool.", "aspp.pool."),
    ("_aspp._proj_conv_bn_act.", "aspp.project."),
    *((f"_low_level_projection_os{8 // (i + 1)}.", f"project.{i}.") for i in range(2)),
    *((f"_low_level_fusion_os{8 // (i + 1)}_conv{j}_bn_act.", f"fuse.{i}.{j}.") for i in range(2) for j in range(2)),
    ("conv_block_#.", "refine.#."),
    ("final_conv.conv.", "logits."),
)
_PLAIN_HEAD: Table = (("0.", "layers.0."), ("1.", "layers.1."), ("2.conv.", "layers.2."))
_SEMANTIC = "sem_seg_head.predictor._auxiliary_semantic_predictor."
TABLE: Table = (
    *_RESNET,
    *_CONVNEXT,
    *(("sem_seg_head.pixel_decoder." + theirs, "pixel_decoder." + ours) for theirs, ours in _PIXEL_DECODER),
    *((_SEMANTIC + theirs, "semantic_head." + ours) for theirs, ours in (*_ATROUS_HEAD, *_PLAIN_HEAD)),
    *(("sem_seg_head.predictor." + theirs, "transformer_decoder." + ours) for theirs, ours in _TRANSFORMER_DECODER),
)
"""(prefix of their name, prefix of ours), longer ones first; the rest of a name is the same on both sides."""
_NAMES = NameTable(TABLE)


def our_name(theirs: str) -> str | None:
    """Our name of a published checkpoint's entry; None if the table has none."""
    return _NAMES.ours(theirs)


def their_name(ours: str) -> str | None:
    """The published name of one of our entries; None if the table has none."""
    return _NAMES.theirs(ours)


def from_detectron2(state_dict: Mapping[str, object]) -> dict[str, Tensor]:
    """A published checkpoint (with or without its `model` wrapper, NumPy or torch values) under our names.

    Raises:
        ValueError: an entry that the table does not know.
    """
    wrapped = state_dict.get("model")
    entries = wrapped if isinstance(wrapped, Mapping) else state_dict
    unknown = [name for name in entries if our_name(name) is None]
    if unknown:
        raise ValueError(
            f"{len(unknown)} entries are not of a published PyTorch kMaX-DeepLab, the first is {unknown[0]!r}: "
            "is this another model's checkpoint?"
        )
    return {
        str(our_name(name)): torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value)
        for name, value in entries.items()
    }


def to_detectron2(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_detectron2`: a model's entries under their published names.

    Raises:
        ValueError: the model has parts that the published ones lack.
    """
    unknown = [name for name in state_dict if their_name(name) is None]
    if unknown:
        raise ValueError(f"{unknown[0]} has no counterpart in the published models ({len(unknown)} such entries).")
    return {str(their_name(name)): value for name, value in state_dict.items()}


def load_detectron2(model: nn.Module, state_dict: Mapping[str, object]) -> None:
    """Load a published PyTorch checkpoint, strictly; a model on `meta` takes its tensors as they are.

    Raises:
        ValueError: names or shapes that do not fit; the message names the first of each kind and the remedy.
    """
    theirs, own = from_detectron2(state_dict), model.state_dict()
    problem = describe_mismatch(own, theirs)
    if problem:
        raise ValueError(
            f"The checkpoint does not fit the model: {problem}. Choose the experiment that it was published for."
        )
    model.load_state_dict(theirs, assign=next(model.parameters()).is_meta)

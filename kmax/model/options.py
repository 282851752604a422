"""The options of the network. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from kmax.options import REQUIRED, Options, option

FAMILIES = ("detectron2", "deeplab2")
ATTENTIONS = ("kmeans", "softmax")
SEMANTIC_HEADS = ("aspp", "plain", "none")


@dataclass(frozen=True)
class BackboneOptions(Options):
    """The backbone: a timm model, or `max_s`."""

    name: str = option(REQUIRED, "timm's name, with a tag if weights matter (convnext_large.fb_in22k), or max_s")
    pretrained: bool | str = option(False, "true: timm's weights of that name; or a file of ImageNet weights")
    drop_path: float = option(
        0.0, "rate at which the last block is dropped, from 0 at the first", at_least=0, at_most=1
    )
    checkpointing: bool = option(False, "compute the activations of each stage again in the backward pass")


@dataclass(frozen=True)
class ModelOptions(Options):
    """kMaX-DeepLab: pixel decoder, k-means transformer decoder, semantic head."""

    family: str = option("detectron2", "which published implementation to equal", choices=FAMILIES)
    num_queries: int = option(128, "N, the number of clusters", at_least=1)
    widths: tuple[int, ...] = option(
        (512, 256, 128, 64, 32), "of the pixel decoder's stages at strides 32, 16, 8, 4 and the stem's", at_least=1
    )
    blocks: tuple[int, ...] = option((1, 5, 1, 1, 1), "how many blocks each of these stages has", at_least=1)
    axial_stages: int = option(2, "how many stages, from the coarsest, use axial attention", at_least=0)
    decoder_heads: int = option(8, "attention heads of the pixel decoder", at_least=1)
    decoder_drop_path: float = option(0.0, "rate at which its blocks are dropped", at_least=0, at_most=1)
    stem_stage: bool = option(False, "a further stage on the stem's feature (Cityscapes)")
    layers: tuple[int, ...] = option((2, 2, 2), "transformer layers on strides 32, 16 and 8", at_least=0)
    dim: int = option(256, "channels of the cluster centers", at_least=1)
    feature_dim: int = option(128, "channels of the pixel feature", at_least=1)
    ffn_dim: int = option(2048, "hidden channels of the feed-forward networks", at_least=1)
    heads: int = option(8, "attention heads among the cluster centers", at_least=1)
    drop_path: float = option(0.2, "rate at which the updates of a layer are dropped", at_least=0, at_most=1)
    attention: str = option("kmeans", "how queries gather pixels", choices=ATTENTIONS)
    semantic_head: str = option("aspp", "auxiliary semantic head, in training only", choices=SEMANTIC_HEADS)
    semantic_dim: int = option(256, "its width", at_least=1)

"""From options to a network, whichever the architecture."""

from __future__ import annotations

from kmax.checkpoint.imagenet import load_imagenet
from kmax.model.backbone import build_backbone
from kmax.model.kmax_deeplab import KMaXDeepLab
from kmax.model.max_deeplab import MaXDeepLab
from kmax.model.options import MAX_BACKBONES, BackboneOptions, ModelOptions, check_network

Network = KMaXDeepLab | MaXDeepLab


def build_network(backbone: BackboneOptions, model: ModelOptions, num_classes: int) -> Network:
    """The network with `num_classes` classes.

    Raises:
        OptionError: options that do not fit each other.
        FileNotFoundError, ValueError: backbone weights that cannot be had.
    """
    check_network(backbone, model)
    if model.architecture != "max_deeplab":
        return KMaXDeepLab(build_backbone(backbone, model.family), num_classes, model)
    network = MaXDeepLab(MAX_BACKBONES[backbone.name], num_classes, model)
    network.checkpointing = backbone.checkpointing
    if isinstance(backbone.pretrained, str):
        load_imagenet(network.backbone, backbone.pretrained)
    return network

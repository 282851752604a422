"""The network."""

from kmax.model.backbone import Backbone, build_backbone
from kmax.model.kmax_deeplab import KMaXDeepLab

__all__ = ["Backbone", "KMaXDeepLab", "build_backbone"]

"""The network."""

from kmax.model.backbone import build_backbone
from kmax.model.features import Backbone
from kmax.model.kmax_deeplab import KMaXDeepLab

__all__ = ["Backbone", "KMaXDeepLab", "build_backbone"]

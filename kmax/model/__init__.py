"""The network."""

from kmax.model.backbone import build_backbone
from kmax.model.features import Backbone
from kmax.model.kmax_deeplab import KMaXDeepLab
from kmax.model.max_deeplab import MaXDeepLab
from kmax.model.network import Network, build_network

__all__ = ["Backbone", "KMaXDeepLab", "MaXDeepLab", "Network", "build_backbone", "build_network"]

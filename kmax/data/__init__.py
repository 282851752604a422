"""Datasets, augmentation and loaders."""

from kmax.data.coco import ADE20KPanoptic, CityscapesPanoptic, CocoPanoptic, UnreadableImageError
from kmax.data.shapes import ShapesDataset
from kmax.data.transforms import resize_and_pad

__all__ = [
    "ADE20KPanoptic",
    "CityscapesPanoptic",
    "CocoPanoptic",
    "ShapesDataset",
    "UnreadableImageError",
    "resize_and_pad",
]

"""Pictures of images, panoptic maps, clusters and metrics, with NumPy and Pillow alone.

All pictures are (H, W, 3) uint8 RGB arrays.
"""

from kmax.visualization.charts import draw_bars, draw_confusion
from kmax.visualization.clusters import draw_cluster_viewer, draw_clusters, main_query
from kmax.visualization.errors import ERROR_KEY, draw_errors
from kmax.visualization.fonts import legible_names
from kmax.visualization.gallery import GalleryImage, gallery_image, gallery_page
from kmax.visualization.layout import fit_image
from kmax.visualization.palette import cluster_color, segment_colors
from kmax.visualization.panels import panel, panel_boxes
from kmax.visualization.panoptic import draw_panoptic, with_legend

__all__ = [
    "ERROR_KEY",
    "GalleryImage",
    "cluster_color",
    "draw_bars",
    "draw_cluster_viewer",
    "draw_clusters",
    "draw_confusion",
    "draw_errors",
    "draw_panoptic",
    "fit_image",
    "gallery_image",
    "gallery_page",
    "legible_names",
    "main_query",
    "panel",
    "panel_boxes",
    "segment_colors",
    "with_legend",
]

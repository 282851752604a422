"""Metrics, as counts that add up over images and ranks."""

from kmax.metrics.cityscapes_ap import CityscapesAP
from kmax.metrics.mask_ap import MaskAP, MaskAPResult
from kmax.metrics.mean_iou import MeanIoU, MeanIoUResult
from kmax.metrics.options import METRICS
from kmax.metrics.panoptic_quality import PanopticQuality, PanopticQualityResult, Quality, image_quality
from kmax.metrics.suite import MetricSuite, Report

__all__ = [
    "METRICS",
    "CityscapesAP",
    "MaskAP",
    "MaskAPResult",
    "MeanIoU",
    "MeanIoUResult",
    "MetricSuite",
    "PanopticQuality",
    "PanopticQualityResult",
    "Quality",
    "Report",
    "image_quality",
]

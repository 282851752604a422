"""Metrics, as counts that add up over images and ranks."""

from kmax.metrics.panoptic_quality import PanopticQuality, PanopticQualityResult, Quality, QualityRow

__all__ = ["PanopticQuality", "PanopticQualityResult", "Quality", "QualityRow"]

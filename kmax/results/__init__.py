"""Predictions as files: COCO's formats, label maps, tables of segments, and a folder that can be continued."""

from kmax.results.coco import category_table, encode_ids, panoptic_annotation, segments_info
from kmax.results.folder import OUTPUTS, ResultFolder

__all__ = [
    "OUTPUTS",
    "ResultFolder",
    "category_table",
    "encode_ids",
    "panoptic_annotation",
    "segments_info",
]

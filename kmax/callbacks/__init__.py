"""Callbacks and loggers of a run."""

from kmax.callbacks.loggers import wandb_logger
from kmax.callbacks.panels import Panels
from kmax.callbacks.prediction_writer import PredictionWriter
from kmax.callbacks.pruning import MedianPruning
from kmax.callbacks.skipped_files import SkippedFiles

__all__ = ["MedianPruning", "Panels", "PredictionWriter", "SkippedFiles", "wandb_logger"]

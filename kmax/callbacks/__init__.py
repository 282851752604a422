"""Callbacks and loggers of a run."""

from kmax.callbacks.loggers import ContinuedCSVLogger, tensorboard_logger, wandb_logger
from kmax.callbacks.panels import Panels
from kmax.callbacks.prediction_writer import PredictionWriter
from kmax.callbacks.pruning import MedianPruning
from kmax.callbacks.skipped_files import SkippedFiles
from kmax.callbacks.tracking import Tracking

__all__ = [
    "ContinuedCSVLogger",
    "MedianPruning",
    "Panels",
    "PredictionWriter",
    "SkippedFiles",
    "Tracking",
    "tensorboard_logger",
    "wandb_logger",
]

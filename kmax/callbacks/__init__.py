"""Callbacks and loggers of a run."""

from kmax.callbacks.best import BestCheckpoint
from kmax.callbacks.checkpoint_files import AtomicCheckpointIO, checkpoint_to_resume
from kmax.callbacks.costs import Costs
from kmax.callbacks.early_stop import EarlyStop
from kmax.callbacks.estimate import Estimate
from kmax.callbacks.heartbeat import Heartbeat
from kmax.callbacks.loggers import ContinuedCSVLogger, tensorboard_logger, wandb_logger
from kmax.callbacks.moving_average import MovingAverage
from kmax.callbacks.nonfinite import NonFiniteGuard
from kmax.callbacks.panels import Panels
from kmax.callbacks.prediction_writer import PredictionWriter
from kmax.callbacks.progress import Progress
from kmax.callbacks.pruning import MedianPruning
from kmax.callbacks.random_state import RandomState
from kmax.callbacks.resume import ResumeCheckpoint
from kmax.callbacks.skipped_files import SkippedFiles
from kmax.callbacks.threads import FitThreads
from kmax.callbacks.tracking import Tracking
from kmax.strategy.signals import STOP_SIGNALS, Stopped

__all__ = [
    "STOP_SIGNALS",
    "AtomicCheckpointIO",
    "BestCheckpoint",
    "ContinuedCSVLogger",
    "Costs",
    "EarlyStop",
    "Estimate",
    "FitThreads",
    "Heartbeat",
    "MedianPruning",
    "MovingAverage",
    "NonFiniteGuard",
    "Panels",
    "PredictionWriter",
    "Progress",
    "RandomState",
    "ResumeCheckpoint",
    "SkippedFiles",
    "Stopped",
    "Tracking",
    "checkpoint_to_resume",
    "tensorboard_logger",
    "wandb_logger",
]

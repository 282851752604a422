"""The LightningDataModule of a panoptic dataset."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.accelerators import CUDAAccelerator
from torch.utils.data import DataLoader

from kmax.data.datasets import PanopticDataset
from kmax.data.evaluation import EvaluationItem, EvaluationSet, StridedSampler, collate_evaluation
from kmax.data.loader import DrawSampler, TrainingLoader, start_worker
from kmax.data.options import DatasetOptions
from kmax.data.training import TrainingSet, collate_training
from kmax.options import Plain
from kmax.structures import Batch


class PanopticDataModule(LightningDataModule):
    """Loaders of a training and a validation set.

    Args:
        train, val: functions that make the datasets, called when a loader is first needed, so that evaluation needs no
            training files.
        options: how training images are made; evaluation pads to `options.size`.
        min_labeled_pixels: of a training image, at the targets' stride.
        batch_size, val_batch_size: per device.
        num_workers: processes per loader; 0 reads in the process itself.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        train: Callable[[], PanopticDataset],
        val: Callable[[], PanopticDataset],
        options: DatasetOptions,
        batch_size: int,
        val_batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        min_labeled_pixels: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.val, self.options = train, val, options
        self.min_labeled_pixels = min_labeled_pixels
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.num_workers, self.seed = num_workers, seed
        self.training_set: TrainingSet | None = None
        self.evaluation_set: EvaluationSet | None = None

    def setup(self, stage: str) -> None:
        """Read the indices; `stage` is Lightning's."""
        if stage == "fit" and self.training_set is None:
            self.training_set = TrainingSet(self.train(), self.options, self.seed, self.min_labeled_pixels)
        if self.evaluation_set is None:
            self.evaluation_set = EvaluationSet(self.val(), self.options.size)

    @property
    def skipped_files(self) -> int:
        """How often training has skipped an unreadable image."""
        return int(self.training_set.skipped) if self.training_set is not None else 0

    def train_dataloader(self) -> TrainingLoader:
        """Batches with targets: as many as the run takes, or one epoch if there is no trainer that knows its length."""
        assert self.training_set is not None, "setup comes first"
        rank, world_size = self._rank_and_world_size()
        draws = len(self.training_set) // world_size
        if self.trainer is not None and self.trainer.max_steps > 0:
            draws = self.trainer.max_steps * self.trainer.accumulate_grad_batches * self.batch_size
        sampler = DrawSampler(len(self.training_set), self.seed, draws, rank, world_size)
        options = self._options(collate_training)
        return TrainingLoader(self.training_set, self.batch_size, sampler, **options)

    def val_dataloader(self) -> DataLoader[EvaluationItem]:
        """Batches with samples; every image once over all ranks."""
        assert self.evaluation_set is not None, "setup comes first"
        sampler = StridedSampler(len(self.evaluation_set), *self._rank_and_world_size())
        options = self._options(collate_evaluation)
        return DataLoader(self.evaluation_set, self.val_batch_size, sampler=sampler, **options)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on `device`; from page-locked memory the copy overlaps with computation."""
        return batch.to(device, non_blocking=True)

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _options(self, collate: Callable[..., Batch]) -> Plain:
        accelerator = self.trainer.accelerator if self.trainer is not None else None
        return {
            "collate_fn": collate,
            "num_workers": self.num_workers,
            "worker_init_fn": start_worker,
            "persistent_workers": self.num_workers > 0,
            # Fork explicitly: some sweep launchers and recent Python versions default to methods that copy all data.
            "multiprocessing_context": "fork" if self.num_workers and sys.platform.startswith("linux") else None,
            "pin_memory": isinstance(accelerator, CUDAAccelerator),
            # A separate generator: starting workers must not advance the random numbers that training draws.
            "generator": torch.Generator().manual_seed(self.seed),
        }

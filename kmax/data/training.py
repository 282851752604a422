"""The datasets that the loaders read: augmented draws for training, padded images for evaluation.

Every random number of a draw follows from (seed, epoch, index), whichever worker makes it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from kmax.categories import Categories
from kmax.data.coco import UnreadableImageError
from kmax.data.copy_paste import Canvas, choose_segments, paste, to_canvas
from kmax.data.targets import make_target
from kmax.data.transforms import draw_window, jitter_color, resize_and_pad, transform_sample
from kmax.structures import VOID, Batch, Sample, Target

MAX_TRIES = 50
MIN_BATCHES_PER_EPOCH = 50


class PanopticDataset(Protocol):
    """What a dataset must offer: length, samples by index, and its categories."""

    categories: Categories

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Augmentation:
    """How a training image is made.

    `size` (H, W) of the crop; `scale` bounds of the jitter; a draw must have more than `min_labelled_pixels` pixels of
    segments at `target_stride`.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    color_jitter: bool = True
    copy_paste: bool = True
    target_stride: int = 4
    min_labelled_pixels: int = 0

    def __post_init__(self) -> None:
        cells = -(-self.size[0] // self.target_stride) * -(-self.size[1] // self.target_stride)
        if self.min_labelled_pixels >= cells:
            raise ValueError(
                f"A crop of {self.size[0]}×{self.size[1]} has {cells} pixels at stride {self.target_stride}, so none "
                f"has more than loss.samples={self.min_labelled_pixels} labelled ones: lower loss.samples."
            )
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"dataset.scale={list(self.scale)} must be two positive numbers, the smaller first.")


TrainingItem = tuple[np.ndarray, np.ndarray, Target]


class TrainingSet(Dataset):
    """Augmented draws of a dataset, asked for by (epoch, index).

    An unreadable image is skipped with a warning and counted in `skipped`, which all workers share.
    """

    def __init__(self, dataset: PanopticDataset, augmentation: Augmentation, seed: int) -> None:
        self.dataset, self.augmentation, self.seed = dataset, augmentation, seed
        self.skipped = torch.zeros(1, dtype=torch.long).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> TrainingItem:
        """Image (H, W, 3), its valid mask (H, W) and the target.

        Raises:
            ValueError: no draw is good enough.
        """
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        options = self.augmentation
        for _ in range(MAX_TRIES):
            try:
                canvas = self._draw(index, rng)
            except UnreadableImageError as error:
                self.skipped += 1
                warnings.warn(f"{error} Training goes on without it.", stacklevel=2)
            else:
                target = make_target(canvas.sample, options.size, options.target_stride)
                labelled = int((target.segment_map != VOID).sum())
                if len(target.labels) and labelled > options.min_labelled_pixels:
                    return canvas.sample.image, canvas.valid, target
            index = int(rng.integers(len(self.dataset)))
        raise ValueError(
            f"None of {MAX_TRIES} draws had more than {options.min_labelled_pixels} labelled pixels at stride "
            f"{options.target_stride}: lower loss.samples or raise dataset.scale."
        )

    def _draw(self, index: int, rng: np.random.Generator) -> Canvas:
        canvas = self._augmented(index, 1.0, rng)
        if not self.augmentation.copy_paste:
            return canvas
        other = self._augmented(int(rng.integers(len(self.dataset))), 0.5, rng)
        is_thing = self.dataset.categories.is_thing
        return paste(canvas, other, choose_segments(other.sample, is_thing, rng), is_thing)

    def _augmented(self, index: int, factor: float, rng: np.random.Generator) -> Canvas:
        options, sample = self.augmentation, self.dataset[index]
        scale = (options.scale[0] * factor, options.scale[1] * factor)
        image_size = (sample.image.shape[0], sample.image.shape[1])
        sample = transform_sample(sample, draw_window(image_size, options.size, scale, options.flip, rng))
        if options.color_jitter:
            sample = replace(sample, image=jitter_color(sample.image, rng))
        return to_canvas(sample, options.size)


class EvaluationSet(Dataset):
    """Images padded for evaluation, with their samples untouched."""

    def __init__(self, dataset: PanopticDataset, size: tuple[int, int]) -> None:
        self.dataset, self.size = dataset, size

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, Sample]:
        sample = self.dataset[index]
        return (*resize_and_pad(sample.image, self.size), sample)


class DrawSampler(Sampler[tuple[int, int]]):
    """(epoch, index) of one rank: a fresh permutation per pass, as many draws on every rank.

    An epoch of a small dataset takes several passes, so that it has at least `MIN_BATCHES_PER_EPOCH` batches: the
    length of a run is counted in steps, and starting an epoch costs time.
    """

    def __init__(self, length: int, seed: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.passes = -(-MIN_BATCHES_PER_EPOCH * batch_size * world_size // length)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.passes * self.length // self.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.epoch * self.passes
        draws = (
            (turn, int(index))
            for turn in range(first, first + self.passes)
            for index in np.random.default_rng([self.seed, turn]).permutation(self.length)
        )
        for position, draw in zip(range(len(self) * self.world_size), draws, strict=False):
            if position % self.world_size == self.rank:
                yield draw


class StridedSampler(Sampler[int]):
    """Every image once over all ranks; ranks may differ by one image."""

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, length, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


def collate_training(items: list[TrainingItem]) -> Batch:
    """Draws → batch."""
    images, valid, targets = zip(*items, strict=True)
    return Batch(_stack(images), torch.from_numpy(np.stack(valid)), tuple(targets))


def collate_evaluation(items: list[tuple[np.ndarray, np.ndarray, Sample]]) -> Batch:
    """Padded images with their samples → batch."""
    images, valid, samples = zip(*items, strict=True)
    return Batch(_stack(images), torch.from_numpy(np.stack(valid)), samples=tuple(samples))


def _stack(images: tuple[np.ndarray, ...]) -> Tensor:
    """(H, W, 3) each → (B, 3, H, W), channels last in memory."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

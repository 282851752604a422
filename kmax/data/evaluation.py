"""The dataset of evaluation: images padded to one size, together with the original samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from kmax.data.datasets import PanopticDataset
from kmax.data.loader import stack
from kmax.images import resize_and_pad
from kmax.structures import Batch, Sample

EvaluationItem = tuple[np.ndarray, np.ndarray, Sample]


class EvaluationSet(Dataset[EvaluationItem]):
    """Images padded for evaluation, together with the original samples."""

    def __init__(self, dataset: PanopticDataset, size: tuple[int, int]) -> None:
        self.dataset, self.size = dataset, size

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> EvaluationItem:
        sample = self.dataset[index]
        return (*resize_and_pad(sample.image, self.size), sample)


class StridedSampler(Sampler[int]):
    """Distribute every image once over all ranks, whose numbers of images differ by at most one.

    Raises:
        ValueError: a rank would get no image.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        if length < world_size:
            raise ValueError(
                f"{length} image(s) cannot be shared by {world_size} devices: set the number of devices to "
                f"{max(length, 1)}."
            )
        self.indices = range(rank, length, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


def collate_evaluation(items: list[tuple[np.ndarray, np.ndarray, Sample]]) -> Batch:
    """Padded images with their samples → batch."""
    images, valid, samples = zip(*items, strict=True)
    return Batch(stack(images), torch.from_numpy(np.stack(valid)), samples=tuple(samples))

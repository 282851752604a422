"""Which images a rank draws, in which order, and a loader that can continue where it stopped."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kmax.processes import end_with_parent


class DrawSampler(Sampler[tuple[int, int]]):
    """The draws (epoch, index) of one rank, from one sequence of permutations that all ranks share.

    Draw n of rank r is number n · world_size + r of the sequence, so that batch k holds the same images however many
    ranks it is spread over, and a run can continue from any draw.

    Args:
        length: of the dataset.
        draws: how many this rank takes in the whole run.
    """

    def __init__(self, length: int, seed: int, draws: int, rank: int = 0, world_size: int = 1) -> None:
        if length < 1:
            raise ValueError("The training set holds no image: look at the dataset's folder and at the annotations.")
        self.length, self.seed, self.draws, self.rank, self.world_size = length, seed, draws, rank, world_size
        self.start = 0  # draws that were taken before; the iterator begins after them
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def draw(self, number: int) -> tuple[int, int]:
        """Draw `number` of this rank, counted from the start of the run."""
        epoch, position = divmod(number * self.world_size + self.rank, self.length)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.length)
        return epoch, int(self._order[position])

    def __len__(self) -> int:
        return self.draws

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return (self.draw(number) for number in range(self.start, self.draws))


class TrainingLoader(DataLoader[Any]):
    """A DataLoader that continues after the last batch taken from it, no matter how far its workers had read ahead.

    Its sampler is a `DrawSampler`. `len` counts all batches of the run, those before the start included.
    """

    def __init__(self, dataset: Dataset[Any], batch_size: int, sampler: DrawSampler, **options: Any) -> None:
        super().__init__(dataset, batch_size, sampler=sampler, drop_last=True, **options)
        self.consumed = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        sampler = self._draws()
        sampler.start = self.consumed * self._batch()
        for batch in super().__iter__():
            self.consumed += 1
            yield batch

    def last_draws(self) -> list[tuple[int, int]]:
        """(epoch, index) of the images in the last batch taken."""
        stop = self.consumed * self._batch()
        return [self._draws().draw(number) for number in range(max(0, stop - self._batch()), stop)]

    def state_dict(self) -> dict[str, int]:
        """The number of batches taken, and of images in each, over all ranks."""
        return {"batches": self.consumed, "images_per_batch": self._batch() * self._draws().world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state` was saved.

        Raises:
            ValueError: the batches of that run had another size.
        """
        own = self.state_dict()["images_per_batch"]
        if state["images_per_batch"] != own:
            raise ValueError(
                f"The checkpoint is of a run with {state['images_per_batch']} images a batch over all devices, "
                f"this one has {own}: continue with as many devices and the same batch size per device, or start "
                "a new run from its weights with init_from=CHECKPOINT."
            )
        self.consumed = state["batches"]

    def _draws(self) -> DrawSampler:
        assert isinstance(self.sampler, DrawSampler), "given to the constructor"
        return self.sampler

    def _batch(self) -> int:
        assert self.batch_size is not None, "given to the constructor"
        return self.batch_size


def single_threaded() -> None:
    """Use one core in this process; OpenCV's threads would not survive a fork anyway."""
    cv2.setNumThreads(0)


def start_worker(worker_id: int = 0) -> None:
    """Set up a DataLoader's worker: it uses one core, ends with its parent process, and ignores Ctrl-C, since the
    parent still needs batches to finish its step."""
    single_threaded()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def stack(images: tuple[np.ndarray, ...]) -> Tensor:
    """(H, W, 3) each → (B, 3, H, W), channels last in memory."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

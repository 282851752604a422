"""The datasets that the loaders read: augmented draws for training, padded images for evaluation.

Every random number of a draw follows from (seed, pass, index), whichever worker makes it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kmax.categories import Categories
from kmax.data.coco import UnreadableImageError
from kmax.data.copy_paste import Canvas, choose_segments, paste, to_canvas
from kmax.data.segment_maps import compact
from kmax.data.targets import make_target
from kmax.data.transforms import draw_window, drop_hidden, jitter_color, resize_and_pad, transform_sample
from kmax.structures import VOID, Batch, Sample, Target

MAX_TRIES = 50


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
    """Augmented draws of a dataset, asked for by (pass, index): each pass over the dataset draws anew.

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
        turn, index = key
        rng = np.random.default_rng([self.seed, turn, index])
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
        return paste(canvas, other, choose_segments(drop_hidden(other.sample), is_thing, rng), is_thing)

    def _augmented(self, index: int, factor: float, rng: np.random.Generator) -> Canvas:
        options, sample = self.augmentation, compact(self.dataset[index])
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
    """(pass, index) of one rank's draws, out of one sequence of permutations that all ranks share.

    Draw n of rank r is number n · world_size + r of the sequence, so that batch k holds the same images however many
    ranks it is spread over, and a run goes on from any draw.

    Args:
        length: of the dataset.
        draws: how many this rank takes in the whole run.
    """

    def __init__(self, length: int, seed: int, draws: int, rank: int = 0, world_size: int = 1) -> None:
        if length < 1:
            raise ValueError("The training set holds no image: look at dataset.root and at the annotations.")
        self.length, self.seed, self.draws, self.rank, self.world_size = length, seed, draws, rank, world_size
        self.start = 0  # draws that were taken before; the iterator begins after them
        self._turn, self._order = -1, np.empty(0, np.int64)

    def draw(self, number: int) -> tuple[int, int]:
        """Draw `number` of this rank, counted from the start of the run."""
        turn, place = divmod(number * self.world_size + self.rank, self.length)
        if turn != self._turn:
            self._turn, self._order = turn, np.random.default_rng([self.seed, turn]).permutation(self.length)
        return turn, int(self._order[place])

    def __len__(self) -> int:
        return self.draws

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return (self.draw(number) for number in range(self.start, self.draws))


class TrainingLoader(DataLoader):
    """A DataLoader that goes on after the last batch that was taken from it, however far its workers had read ahead.

    Its sampler is a `DrawSampler`. `len` counts all batches of the run, those before the start included.
    """

    def __init__(self, dataset: Dataset, batch_size: int, sampler: DrawSampler, **options: Any) -> None:
        super().__init__(dataset, batch_size, sampler=sampler, drop_last=True, **options)
        self.consumed = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        sampler = self._draws()
        sampler.start = self.consumed * self._batch()
        for batch in super().__iter__():
            self.consumed += 1
            yield batch

    def last_draws(self) -> list[tuple[int, int]]:
        """(pass, index) of the images in the batch that was taken last."""
        stop = self.consumed * self._batch()
        return [self._draws().draw(number) for number in range(max(0, stop - self._batch()), stop)]

    def state_dict(self) -> dict[str, int]:
        """How many batches were taken, and of how many images over all ranks each is."""
        return {"batches": self.consumed, "images_per_batch": self._batch() * self._draws().world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state` was taken.

        Raises:
            ValueError: the batches of that run were of another size.
        """
        own = self.state_dict()["images_per_batch"]
        if state["images_per_batch"] != own:
            raise ValueError(
                f"The checkpoint is of a run with {state['images_per_batch']} images a batch over all devices, "
                f"this one has {own}: go on with as many devices and the same strategy.batch_size_per_device, or start "
                "a new run from its weights with init_from=CHECKPOINT."
            )
        self.consumed = state["batches"]

    def _draws(self) -> DrawSampler:
        assert isinstance(self.sampler, DrawSampler), "given to the constructor"
        return self.sampler

    def _batch(self) -> int:
        assert self.batch_size is not None, "given to the constructor"
        return self.batch_size


def single_threaded(worker_id: int = 0) -> None:
    """Let a DataLoader's worker use one core; OpenCV's own threads would not survive a fork either."""
    cv2.setNumThreads(0)


class StridedSampler(Sampler[int]):
    """Every image once over all ranks; ranks may differ by one image.

    Raises:
        ValueError: a rank would have no image at all.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        if length < world_size:
            raise ValueError(
                f"{length} image(s) cannot be shared by {world_size} devices: set strategy.devices={max(length, 1)}."
            )
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

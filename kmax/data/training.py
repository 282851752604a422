"""The dataset of training: augmented draws of images.

Every random number of a draw is determined by (seed, epoch, index), in whichever worker.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset

from kmax.data.color_operations import operate_on_color
from kmax.data.copy_paste import Canvas, choose_segments, paste, to_canvas
from kmax.data.datasets import PanopticDataset
from kmax.data.loader import stack
from kmax.data.options import DatasetOptions
from kmax.data.segment_maps import compact
from kmax.data.targets import crowd_map, make_target, weight_map
from kmax.data.transforms import Window, draw_window, drop_hidden, jitter_color, transform_sample
from kmax.images import UnreadableImageError
from kmax.structures import VOID, Batch, Sample, Target

MAX_TRIES = 50

TrainingItem = tuple[np.ndarray, np.ndarray, Target]


class TrainingSet(Dataset[TrainingItem]):
    """Augmented draws of a dataset, indexed by (epoch, index): every epoch has its own augmentation.

    Args:
        min_labeled_pixels: a draw has more pixels of segments than this, at the targets' stride.

    An unreadable image is skipped with a warning and counted in `skipped`, which all workers share.
    """

    def __init__(
        self, dataset: PanopticDataset, options: DatasetOptions, seed: int, min_labeled_pixels: int = 0
    ) -> None:
        self.dataset, self.options, self.seed = dataset, options, seed
        self.min_labeled_pixels = min_labeled_pixels
        self.skipped = torch.zeros(1, dtype=torch.long).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> TrainingItem:
        """Image (H, W, 3), its valid mask (H, W) and the target.

        Raises:
            ValueError: no draw is good enough; the message says why.
        """
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        unreadable: UnreadableImageError | None = None
        most = 0  # labeled pixels of a draw; 0 also where no image could be read
        for _ in range(MAX_TRIES):
            try:
                canvas = self._draw(index, rng)
            except UnreadableImageError as error:
                unreadable = error
                self.skipped += 1
                warnings.warn(f"{error} Training continues without it.", stacklevel=2)
            else:
                target = self._target(canvas.sample)
                labeled = int((target.segment_map != VOID).sum())
                if len(target.labels) and labeled > self.min_labeled_pixels:
                    return canvas.sample.image, canvas.valid, target
                most = max(most, labeled)
            index = int(rng.integers(len(self.dataset)))
        raise ValueError(self._why_no_draw(most, unreadable))

    def _why_no_draw(self, most: int, unreadable: UnreadableImageError | None) -> str:
        """A sentence on `MAX_TRIES` draws, the best of which had `most` labeled pixels."""
        if most:
            return (
                f"None of {MAX_TRIES} draws had more than {self.min_labeled_pixels} labeled pixels at stride "
                f"{self.options.target_stride}, the best had {most}: lower the number of samples or raise the "
                "scale of training."
            )
        if unreadable is not None:
            return f"{MAX_TRIES} draws in a row found no image to train on, and the last error was: {unreadable}"
        return (
            f"None of {MAX_TRIES} draws had a labeled pixel: the segmentation of these images is empty or has nothing "
            "but crowds; check the training set and its annotations."
        )

    def _target(self, sample: Sample) -> Target:
        options = self.options
        target = make_target(sample, options.size, options.target_stride)
        if options.label_crowd:
            target = replace(target, crowd=crowd_map(sample, options.size, options.target_stride))
        if options.small_thing_weight != 1:
            is_thing, weight = self.dataset.categories.is_thing, options.small_thing_weight
            target = replace(target, weight=weight_map(sample, options.size, options.target_stride, is_thing, weight))
        return target

    def _draw(self, index: int, rng: np.random.Generator) -> Canvas:
        canvas = self._augmented(index, 1.0, rng)
        if not self.options.copy_paste:
            return canvas
        other = self._augmented(int(rng.integers(len(self.dataset))), 0.5, rng)
        is_thing = self.dataset.categories.is_thing
        return paste(canvas, other, choose_segments(drop_hidden(other.sample), is_thing, rng), is_thing)

    def _augmented(self, index: int, factor: float, rng: np.random.Generator) -> Canvas:
        options, sample = self.options, compact(self.dataset[index])
        scale = (options.scale[0] * factor, options.scale[1] * factor)
        image_size = (sample.image.shape[0], sample.image.shape[1])
        window = draw_window(image_size, options.size, scale, options.flip, rng, options.scale_step)
        sample = transform_sample(sample, window)
        if options.color_jitter:
            sample = replace(sample, image=jitter_color(sample.image, rng))
        if options.color_operations:
            sample = replace(sample, image=operate_on_color(sample.image, rng))
        return to_canvas(sample, options.size, self._offset(window, rng))

    def _offset(self, window: Window, rng: np.random.Generator) -> tuple[int, int]:
        """Rows above and columns left of an image that does not fill the crop."""
        if not self.options.random_offset:
            return 0, 0
        free = [whole - part for whole, part in zip(self.options.size, window.crop[2:], strict=True)]
        return int(rng.integers(free[0] + 1)), int(rng.integers(free[1] + 1))


def collate_training(items: list[TrainingItem]) -> Batch:
    """Draws → batch."""
    images, valid, targets = zip(*items, strict=True)
    return Batch(stack(images), torch.from_numpy(np.stack(valid)), tuple(targets))

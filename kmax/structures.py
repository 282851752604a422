"""The types that the packages exchange; nothing here computes.

Letters: B batch, H×W image size, h×w target or feature size, M segments of an image, N queries, K classes
without void.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kmax.run_lengths import RunLengths

VOID = -1
"""Value of a pixel without a segment in `Target.segment_map`."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of an image, from the ground truth or from a prediction.

    `id` is the segment's value in its segment map (> 0); `label` is the contiguous class index in 0 … K−1, things
    and stuff alike; a `crowd` segment is a region of many instances, which is not trained on and not counted as missed.
    `score` is the confidence of a prediction and 1 for ground truth.
    """

    id: int
    label: int
    crowd: bool = False
    score: float = 1.0


@dataclass(frozen=True)
class Sample:
    """One image of a dataset with its ground truth, on the CPU.

    `image` (H, W, 3) uint8 RGB; `segment_map` (H, W) int32, 0 = unlabeled; `segments` describes every other value
    that occurs. `image_id` is unique in the dataset; `file_name` names the image in messages and results.
    """

    image: np.ndarray
    segment_map: np.ndarray
    segments: tuple[Segment, ...]
    image_id: int | str
    file_name: str = ""


@dataclass(frozen=True)
class Target:
    """The training target of one image: `segment_map` (h, w) int64 with −1 = void, `labels` (M,) int64.

    Pixel value m stands for the segment with label `labels[m]`; they are disjoint by construction. Two maps that
    MaX-DeepLab uses: `crowd` (h, w) int64 holds the label of each crowd pixel, −1 elsewhere (None: crowd is void), and
    `weight` (h, w) float32 the weight of each pixel in the semantic loss (None: 1).
    """

    segment_map: Tensor
    labels: Tensor
    crowd: Tensor | None = None
    weight: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Target:
        """The same target on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Target:
        """The same target in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Target:
        maps = (self.segment_map, self.labels, self.crowd, self.weight)
        return Target(*(tensor if tensor is None else change(tensor) for tensor in maps))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Batch:
    """A batch as the model takes it.

    `images` (B, 3, H, W) uint8, padded on the right and at the bottom; `valid` (B, H, W) bool, False on padding;
    `targets` one per image in training, empty in evaluation; `samples` the original samples in evaluation, empty in
    training.
    """

    images: Tensor
    valid: Tensor
    targets: tuple[Target, ...] = ()
    samples: tuple[Sample, ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device; `samples` stay where they are."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            valid=self.valid.to(device, non_blocking=non_blocking),
            targets=tuple(target.to(device, non_blocking) for target in self.targets),
        )

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by the DataLoader)."""
        return replace(
            self,
            images=self.images.pin_memory(),
            valid=self.valid.pin_memory(),
            targets=tuple(target.pin_memory() for target in self.targets),
        )


class Prediction(NamedTuple):
    """The prediction of one layer: `class_logits` (B, N, K+1) with void last, `mask_logits` (B, N, h, w),
    `pixel_feature` (B, 128, h, w), of length 1 over channels."""

    class_logits: Tensor
    mask_logits: Tensor
    pixel_feature: Tensor


class Output(NamedTuple):
    """The output of the model: `predictions` from coarse to final; `semantic_logits` (B, K+1 or K, h, w) in
    training with an auxiliary semantic head, otherwise None; `relaxation` in training with ReMaX, per prediction the
    semantic logits (B, K+1, h', w') that relax it, or None."""

    predictions: tuple[Prediction, ...]
    semantic_logits: Tensor | None = None
    relaxation: tuple[Tensor | None, ...] = ()


@dataclass(frozen=True)
class PanopticMap:
    """A panoptic prediction: `segment_map` (H, W) int32 with 0 = void, `segments` its non-empty segments."""

    segment_map: Tensor
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Instances:
    """Instance predictions of one image (H, W) = `size` by descending score: `runs`, a mask each in run-length form,
    `labels` (I,) int64, `scores` (I,) float."""

    size: tuple[int, int]
    runs: tuple[RunLengths, ...]
    labels: Tensor
    scores: Tensor

    @classmethod
    def from_masks(cls, masks: Tensor, labels: Tensor, scores: Tensor) -> Instances:
        """Instances of `masks` (I, H, W) bool."""
        size = (masks.shape[1], masks.shape[2])
        return cls(size, tuple(RunLengths.of(mask) for mask in masks.cpu().numpy()), labels, scores)

    @property
    def masks(self) -> Tensor:
        """The masks (I, H, W) bool, decoded at each access: a hundred masks of a large image are gigabytes."""
        dense = np.zeros((len(self.runs), *self.size), bool)
        for mask, runs in zip(dense, self.runs, strict=True):
            mask[:] = runs.decode()
        return torch.from_numpy(dense)


@dataclass(frozen=True)
class Segmentations:
    """The results of post-processing for one image (H0, W0); None for results that were not asked for. `semantic` (H0,
    W0) int32 holds labels 0 … K−1."""

    panoptic: PanopticMap
    semantic: Tensor | None = None
    instances: Instances | None = None

"""From a sample to its training target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kmax.data.segment_maps import positions, present
from kmax.structures import VOID, Sample, Target

SMALL_AREA = 4096
"""Things with fewer pixels of the crop are small (MaX-DeepLab-L's training)."""


def make_target(sample: Sample, size: tuple[int, int], stride: int = 4) -> Target:
    """The target of a sample that will be padded to `size` (H, W): every `stride`-th pixel, beginning with the first.

    Crowd and padding become void; segments without a remaining pixel are dropped.
    """
    cells = np.ascontiguousarray(sample.segment_map[::stride, ::stride])
    trained = [segment for segment in sample.segments if not segment.crowd]
    segment_map = np.full(_cells(size, stride), VOID, np.int64)
    position = positions(cells, [segment.id for segment in trained])
    left = [number for number in present(position) if number]
    order = np.full(len(trained) + 1, VOID, np.int64)
    order[left] = np.arange(len(left))
    segment_map[: cells.shape[0], : cells.shape[1]] = order[position]
    labels = torch.tensor([trained[number - 1].label for number in left], dtype=torch.long)
    return Target(torch.from_numpy(segment_map), labels)


def crowd_map(sample: Sample, size: tuple[int, int], stride: int = 4) -> torch.Tensor:
    """The label of each crowd pixel, −1 elsewhere, (h, w) int64: what `Target.crowd` holds."""
    crowd = [segment for segment in sample.segments if segment.crowd]
    labels = np.array([VOID, *(segment.label for segment in crowd)], np.int64)
    return torch.from_numpy(_looked_up(sample, [segment.id for segment in crowd], labels, size, stride))


def weight_map(
    sample: Sample, size: tuple[int, int], stride: int, is_thing: Sequence[bool], small_weight: float
) -> torch.Tensor:
    """The weight of each pixel, (h, w) float32: `small_weight` inside things with fewer than `SMALL_AREA` pixels of the
    sample, else 1."""
    things = [segment for segment in sample.segments if is_thing[segment.label] and not segment.crowd]
    ids = [segment.id for segment in things]
    areas = np.bincount(positions(sample.segment_map, ids).ravel(), minlength=len(ids) + 1)
    weights = np.where(areas < SMALL_AREA, small_weight, 1.0).astype(np.float32)
    weights[0] = 1.0
    return torch.from_numpy(_looked_up(sample, ids, weights, size, stride))


def _looked_up(
    sample: Sample, ids: Sequence[int], values: np.ndarray, size: tuple[int, int], stride: int
) -> np.ndarray:
    """`values[1 + i]` on the cells of segment `ids[i]`, `values[0]` elsewhere, (h, w)."""
    cells = np.ascontiguousarray(sample.segment_map[::stride, ::stride])
    result = np.full(_cells(size, stride), values[0])
    result[: cells.shape[0], : cells.shape[1]] = values[positions(cells, ids)]
    return result


def _cells(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)

"""From a sample to what it is trained on."""

from __future__ import annotations

import numpy as np
import torch

from kmax.structures import VOID, Sample, Target


def make_target(sample: Sample, size: tuple[int, int], stride: int = 4) -> Target:
    """The target of a sample that will be padded to `size` (H, W): every `stride`-th pixel from the first on.

    Crowd becomes void, and so does padding; a segment without a pixel left is dropped.
    """
    cells = sample.segment_map[::stride, ::stride]
    trained = [segment for segment in sample.segments if not segment.crowd]
    segment_map = np.full((-(-size[0] // stride), -(-size[1] // stride)), VOID, np.int64)
    position = relabel(cells, [segment.id for segment in trained])
    present = np.flatnonzero(np.bincount(position.ravel() + 1, minlength=len(trained) + 1)[1:])
    order = np.full(len(trained) + 1, VOID, np.int64)
    order[present + 1] = np.arange(len(present))
    segment_map[: cells.shape[0], : cells.shape[1]] = order[position + 1]
    labels = torch.tensor([trained[i].label for i in present], dtype=torch.long)
    return Target(torch.from_numpy(segment_map), labels)


def relabel(segment_map: np.ndarray, ids: list[int]) -> np.ndarray:
    """Position in `ids` of every pixel's id; −1 for what is not in it."""
    if not ids:
        return np.full(segment_map.shape, -1, np.int64)
    order = np.argsort(ids)
    ordered = np.asarray(ids)[order]
    slot = np.searchsorted(ordered, segment_map).clip(max=len(ids) - 1)
    return np.where(ordered[slot] == segment_map, order[slot], -1)

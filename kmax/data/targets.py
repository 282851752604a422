"""From a sample to what it is trained on."""

from __future__ import annotations

import numpy as np
import torch

from kmax.data.segment_maps import positions, present
from kmax.structures import VOID, Sample, Target


def make_target(sample: Sample, size: tuple[int, int], stride: int = 4) -> Target:
    """The target of a sample that will be padded to `size` (H, W): every `stride`-th pixel from the first on.

    Crowd becomes void, and so does padding; a segment without a pixel left is dropped.
    """
    cells = np.ascontiguousarray(sample.segment_map[::stride, ::stride])
    trained = [segment for segment in sample.segments if not segment.crowd]
    segment_map = np.full((-(-size[0] // stride), -(-size[1] // stride)), VOID, np.int64)
    position = positions(cells, [segment.id for segment in trained])
    left = [place for place in present(position) if place]
    order = np.full(len(trained) + 1, VOID, np.int64)
    order[left] = np.arange(len(left))
    segment_map[: cells.shape[0], : cells.shape[1]] = order[position]
    labels = torch.tensor([trained[place - 1].label for place in left], dtype=torch.long)
    return Target(torch.from_numpy(segment_map), labels)

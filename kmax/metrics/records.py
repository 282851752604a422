"""Metrics that need more than sums: one small record per image, gathered from all ranks."""

from __future__ import annotations

import pickle
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric


class RecordMetric(Metric):
    """A metric whose state is a compressed record per image; `records` yields them in the order of image ids.

    So results depend neither on the order of images nor on the number of ranks.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    packed: list[Tensor]  # uint8, the records one after another
    lengths: list[Tensor]  # int64 (1,) each

    def __init__(self) -> None:
        super().__init__()
        self.add_state("packed", [], dist_reduce_fx="cat")
        self.add_state("lengths", [], dist_reduce_fx="cat")

    def keep(self, image_id: int | str, record: object) -> None:
        """Add the record of an image: anything made of plain containers and NumPy arrays."""
        data = zlib.compress(pickle.dumps((image_id, record)), 1)
        self.packed.append(torch.frombuffer(bytearray(data), dtype=torch.uint8).to(self.device))
        self.lengths.append(torch.tensor([len(data)], device=self.device))

    def records(self) -> list[Any]:
        """All records by ascending image id, as in the official tools."""
        packed, lengths = (_joined(state) for state in (self.packed, self.lengths))
        cuts = np.cumsum(lengths)
        pairs = [
            pickle.loads(zlib.decompress(packed[end - n : end].tobytes())) for end, n in zip(cuts, lengths, strict=True)
        ]
        numbers = all(isinstance(image_id, int) for image_id, _ in pairs)
        return [record for _, record in sorted(pairs, key=lambda pair: pair[0] if numbers else str(pair[0]))]


def _joined(state: list[Tensor] | Tensor) -> np.ndarray:
    """Lists before, one tensor after ranks are synchronized."""
    if isinstance(state, list):
        state = torch.cat(state) if state else torch.zeros(0, dtype=torch.int64)
    return state.cpu().numpy()

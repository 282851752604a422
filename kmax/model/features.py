"""What every backbone offers: features by stride.

Letters: B batch, H×W input size.
"""

from __future__ import annotations

from torch import Tensor, nn

from kmax.model.recompute import recompute

STRIDES = (4, 8, 16, 32)
STEM = 0
"""Key of the stem's feature."""


class Backbone(nn.Module):
    """Features by stride: forward maps images (B, 3, H, W) to {4, 8, 16, 32 and, where there is one, 0: stem}.

    `channels` has the same keys. The feature at stride s has ⌈H/s⌉ × ⌈W/s⌉ cells, on pixels 0, s, 2s, …
    `act` is the activation that a feature still lacks (deeplab2 family), else the identity.
    """

    channels: dict[int, int]
    checkpointing: bool = False
    act: nn.Module

    def run(self, stage: nn.Module, x: Tensor) -> Tensor:
        """A stage; its activations are computed again in the backward pass if `checkpointing`."""
        return recompute(stage, x) if self.checkpointing and self.training else stage(x)

"""From pixels to the input of the network."""

from __future__ import annotations

from torch import Tensor


def normalize(images: Tensor, valid: Tensor) -> Tensor:
    """uint8 RGB (B, 3, H, W) → float in [−1, 1]; pixels outside `valid` (B, H, W) become 0."""
    return (images.float() - 127.5) / 127.5 * valid[:, None]

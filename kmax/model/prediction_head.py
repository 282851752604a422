"""From queries and pixels to class and mask logits.

Letters: B batch, C channels, D depth of the pixel feature, K classes without void, N queries, h×w feature size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kmax.model.layers import Activation, ConvNorm, batch_norm, prediction_conv
from kmax.numerics import at_least_float32
from kmax.structures import Prediction

VOID_PRIOR = 0.9


class PredictionHead(nn.Module):
    """Class logits (B, N, K+1), mask logits (B, N, h, w) and pixel feature (B, D, h, w) of length 1.

    Args:
        pixel_channels, dim: of the pixels and of the queries' embeddings.
        feature_dim: D.
        hidden: channels of the pixels on the way to the pixel feature; by default `dim`.
    """

    def __init__(
        self,
        pixel_channels: int,
        dim: int,
        feature_dim: int,
        num_classes: int,
        *,
        hidden: int | None = None,
        act: Activation = nn.GELU,
    ) -> None:
        super().__init__()
        hidden = hidden or dim
        self.pixel_depthwise = ConvNorm(pixel_channels, pixel_channels, 5, depthwise=True, act=act)
        self.pixel_hidden = ConvNorm(pixel_channels, hidden, act=act)
        self.pixel_feature = ConvNorm(hidden, feature_dim, bias=True, std=0.01)
        self.mask_kernel = ConvNorm(dim, feature_dim, dims=1)
        self.class_logits = prediction_conv(dim, num_classes + 1, dims=1)
        self.mask_norm = batch_norm(1, 2, scale=0.1)
        # K classes share what the void prior leaves, so void starts ln(prior / ((1 − prior) / K)) above each.
        self.void_offset = math.log(VOID_PRIOR / (1 - VOID_PRIOR) * num_classes)

    def forward(self, class_embedding: Tensor, mask_embedding: Tensor, pixels: Tensor) -> Prediction:
        """Embeddings (B, C, N) and pixels (B, C, h, w) → prediction."""
        feature = self.pixel_feature(self.pixel_hidden(self.pixel_depthwise(pixels)))
        feature = F.normalize(at_least_float32(feature), dim=1)
        kernels = self.mask_kernel(mask_embedding)
        masks = torch.einsum("bdn,bdhw->bnhw", kernels, feature.to(kernels.dtype))  # (B, N, h, w)
        # One scale and shift for all mask logits: the norm sees (B, 1, N·h, w).
        masks = self.mask_norm(masks.flatten(1, 2)[:, None]).unflatten(2, masks.shape[1:3])[:, 0]
        return Prediction(self.classify(class_embedding), masks, feature)

    def classify(self, class_embedding: Tensor) -> Tensor:
        """Embeddings (B, C, N) → class logits (B, N, K+1)."""
        classes: Tensor = self.class_logits(class_embedding).transpose(1, 2)  # (B, K+1, N) → (B, N, K+1)
        offset = classes.new_zeros(classes.shape[-1])
        offset[-1:] = self.void_offset  # assigning to an element would copy from the host and wait
        return classes + offset

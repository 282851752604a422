"""One layer of the k-means transformer decoder (kMaX-DeepLab, arXiv 2207.04044, section 3.3), and its relatives:
ordinary cross-attention, CMT-DeepLab's clustering (arXiv 2206.08948) and ClustSeg's recurrence (arXiv 2303.09831).

Letters: B batch, C channels, N queries, h×w feature size, P = h·w pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from kmax.model import kmeans
from kmax.model.attention import NormalizedAttention
from kmax.model.layers import ConvNorm, batch_norm
from kmax.model.options import ModelOptions
from kmax.model.prediction_head import PredictionHead
from kmax.structures import Prediction


class LayerResult(NamedTuple):
    """New `centers` (B, C, N), the `feature` (B, C', h, w) for the next layer, the layer's `pixels` (B, C, h, w), and
    one prediction per repetition."""

    centers: Tensor
    feature: Tensor
    pixels: Tensor
    predictions: tuple[Prediction, ...]


class CrossAttention(nn.Module):
    """Queries (B, C, N) read from pixels (B, C, P) by multi-head attention with normalized logits."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.query = ConvNorm(dim, dim // 2, dims=1, std=dim**-0.5)
        self.key = ConvNorm(dim, dim // 2, dims=1, std=dim**-0.5)
        self.attention = NormalizedAttention(dim, heads, nn.GELU)
        self.out = ConvNorm(dim, dim, dims=1, scale=0.0)

    def forward(self, queries: Tensor, pixels: Tensor, values: Tensor) -> Tensor:
        update: Tensor = self.out(self.attention(self.query(queries), self.key(pixels), values))
        return update


class PixelUpdate(nn.Module):
    """The update (B, C', h, w) of the pixels from the queries (B, C, N), by their assignment (B, N, P) to them."""

    def __init__(self, dim: int, pixel_channels: int) -> None:
        super().__init__()
        self.value = ConvNorm(dim, dim, dims=1, std=dim**-0.5)
        self.out = ConvNorm(dim, pixel_channels, scale=0.0)

    def forward(self, queries: Tensor, assignment: Tensor, size: torch.Size) -> Tensor:
        pixels = kmeans.pixel_update(assignment, self.value(queries)).unflatten(2, size)  # (B, C, P) → (B, C, h, w)
        update: Tensor = self.out(pixels)
        return update


class KMeansLayer(nn.Module):
    """Predict, assign pixels to clusters, update the centers, and let the centers attend to each other.

    Args:
        pixel_channels: C' of the pixel decoder's feature.
        writes_pixels: the layer also updates the pixels (CMT-DeepLab).
    """

    def __init__(
        self, pixel_channels: int, num_classes: int, options: ModelOptions, writes_pixels: bool = False
    ) -> None:
        super().__init__()
        self.options, dim = options, options.dim
        self.pixel_in = ConvNorm(pixel_channels + 2 * options.coordinates, dim, act=nn.GELU)
        self.query_in = ConvNorm(dim, dim, dims=1, act=nn.GELU)
        self.value = ConvNorm(dim, dim, std=dim**-0.5)
        self.predictor = PredictionHead(dim, dim, options.feature_dim, num_classes)
        # At the start mask logits are ten times too small for a softmax over pixels; k-means only takes the largest.
        self.attention_norm = batch_norm(1, 2) if options.attention == "softmax" else None
        self.cross_attention = CrossAttention(dim, options.heads) if options.attention == "cmt" else None
        self.pixel_update = PixelUpdate(dim, pixel_channels) if writes_pixels else None
        self.update_norm = batch_norm(dim, 1)
        self.update_out = ConvNorm(dim, dim, dims=1, scale=0.0)
        self.qkv = ConvNorm(dim, 2 * dim, dims=1, std=dim**-0.5)
        self.self_attention = NormalizedAttention(dim, options.heads, nn.GELU)
        self.qkv_channels = (dim // 2, dim // 2, dim)
        self.attention_out = ConvNorm(dim, dim, dims=1, scale=0.0)
        self.ffn_in = ConvNorm(dim, options.ffn_dim, dims=1, act=nn.GELU)
        self.ffn_out = ConvNorm(options.ffn_dim, dim, dims=1, scale=0.0)
        self.drop_path = DropPath(options.drop_path)

    def forward(self, centers: Tensor, feature: Tensor, before: Tensor | None = None) -> LayerResult:
        """Cluster centers (B, C, N) and pixel-decoder feature (B, C', h, w) → new centers and their predictions.

        `before`: mask logits (B, N, h, w) to be added to the first ones, with `residual_assignment`.
        """
        pixels = self.pixel_in(self._with_coordinates(F.gelu(feature)))  # (B, C, h, w)
        values, predictions = self.value(pixels), []
        for _ in range(self.options.recurrence):
            queries = self.query_in(centers)
            prediction = self.predictor(queries, queries, pixels)
            if before is not None:
                prediction = prediction._replace(mask_logits=prediction.mask_logits + before)
            predictions.append(prediction)
            # Sums over pixels are in at least float32; with half-precision weights, computation then returns to theirs.
            gathered = self._gather(prediction.mask_logits, values).to(self.update_out.conv.weight.dtype)
            centers = centers + self.drop_path(self.update_out(self.update_norm(gathered)))
        if self.cross_attention is not None:
            crossed = self.cross_attention(queries, pixels.flatten(2), values.flatten(2))
            centers = centers + self.drop_path(crossed)
        if self.pixel_update is not None:
            assignment = kmeans.soft_assign(predictions[-1].mask_logits.flatten(2))
            feature = feature + self.drop_path(self.pixel_update(queries, assignment, feature.shape[2:]))
        attended = self.attention_out(self.self_attention(*self.qkv(queries).split(self.qkv_channels, 1)))
        centers = F.gelu(centers + self.drop_path(attended))
        centers = F.gelu(centers + self.drop_path(self.ffn_out(self.ffn_in(centers))))
        return LayerResult(centers, feature, pixels, tuple(predictions))

    def _with_coordinates(self, feature: Tensor) -> Tensor:
        """The feature (B, C', h, w), with the option `coordinates` joined by those of its pixels, (B, C' + 2, h, w)."""
        return torch.cat([feature, kmeans.coordinates(feature)], 1) if self.options.coordinates else feature

    def _gather(self, mask_logits: Tensor, values: Tensor) -> Tensor:
        """The values that each query gathers from the pixels, (B, C, N), from values (B, C, h, w)."""
        affinity, values = mask_logits.flatten(2), values.flatten(2)  # (B, N, P), (B, C, P)
        if self.attention_norm is not None:
            return kmeans.softmax_update(self.attention_norm(affinity[:, None])[:, 0], values)
        if self.options.attention == "cmt":
            return kmeans.soft_update(kmeans.soft_assign(affinity), values)
        update = kmeans.mean_update if self.options.update == "mean" else kmeans.update
        return update(kmeans.assign(affinity.detach()), values, affinity.shape[1])

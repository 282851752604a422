"""The k-means transformer decoder (kMaX-DeepLab, arXiv 2207.04044, section 3.3).

Letters: B batch, C channels, N queries, h×w feature size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from kmax.model import kmeans
from kmax.model.layers import ConvNorm, batch_norm
from kmax.model.options import ModelOptions
from kmax.model.prediction_head import PredictionHead
from kmax.numerics import at_least_float32
from kmax.options import OptionError
from kmax.structures import Prediction

COARSE_STRIDES = (32, 16, 8)
"""Of the features that the layers attend to."""


class QuerySelfAttention(nn.Module):
    """Multi-head attention among queries with normalised logits: qkv (B, 2·C, N) → (B, C, N)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.dim, self.heads = dim, heads
        self.logit_norm = batch_norm(heads, 2)
        self.output_norm = batch_norm(dim, 1)

    def forward(self, qkv: Tensor) -> Tensor:
        parts = qkv.split([self.dim // 2, self.dim // 2, self.dim], 1)
        query, key, value = (part.unflatten(1, (self.heads, -1)) for part in parts)
        weight = at_least_float32(self.logit_norm(query.transpose(-1, -2) @ key)).softmax(-1)
        return F.gelu(self.output_norm((value @ weight.to(value.dtype).transpose(-1, -2)).flatten(1, 2)))


class KMeansLayer(nn.Module):
    """Predict, assign pixels to clusters, update the centres, and let the centres attend to each other."""

    def __init__(self, pixel_channels: int, num_classes: int, options: ModelOptions) -> None:
        super().__init__()
        dim = options.dim
        self.pixel_in = ConvNorm(pixel_channels, dim, act=True)
        self.query_in = ConvNorm(dim, dim, dims=1, act=True)
        self.value = ConvNorm(dim, dim, std=dim**-0.5)
        self.predictor = PredictionHead(dim, dim, options.feature_dim, num_classes)
        # Mask logits start ten times too flat for a softmax over pixels; k-means only asks which is the largest.
        self.attention_norm = batch_norm(1, 2) if options.attention == "softmax" else None
        self.update_norm = batch_norm(dim, 1)
        self.update_out = ConvNorm(dim, dim, dims=1, scale=0.0)
        self.qkv = ConvNorm(dim, 2 * dim, dims=1, std=dim**-0.5)
        self.self_attention = QuerySelfAttention(dim, options.heads)
        self.attention_out = ConvNorm(dim, dim, dims=1, scale=0.0)
        self.ffn_in = ConvNorm(dim, options.ffn_dim, dims=1, act=True)
        self.ffn_out = ConvNorm(options.ffn_dim, dim, dims=1, scale=0.0)
        self.drop_path = DropPath(options.drop_path)

    def forward(self, centres: Tensor, feature: Tensor) -> tuple[Tensor, Prediction]:
        """Cluster centres (B, C, N) and pixel-decoder feature (B, C', h, w) → new centres, prediction."""
        pixels = self.pixel_in(F.gelu(feature))
        queries = self.query_in(centres)
        prediction = self.predictor(queries, queries, pixels)
        gathered = self._gather(prediction.mask_logits, self.value(pixels))
        centres = centres + self.drop_path(self.update_out(self.update_norm(gathered)))
        attended = self.attention_out(self.self_attention(self.qkv(queries)))
        centres = F.gelu(centres + self.drop_path(attended))
        return F.gelu(centres + self.drop_path(self.ffn_out(self.ffn_in(centres)))), prediction

    def _gather(self, mask_logits: Tensor, values: Tensor) -> Tensor:
        """What each query takes from the pixels, (B, C, N)."""
        affinity, values = mask_logits.flatten(2), values.flatten(2)
        if self.attention_norm is not None:
            return kmeans.softmax_update(self.attention_norm(affinity[:, None])[:, 0], values)
        return kmeans.update(kmeans.assign(affinity.detach()), values, affinity.shape[1])


class TransformerDecoder(nn.Module):
    """Layers from coarse to fine on the pixel decoder's features, then the final prediction.

    Args:
        channels: of the pixel decoder's features, coarse to fine; the finest is for the final prediction.
        options: `layers` tells how many layers use each of the features at `COARSE_STRIDES`.

    Raises:
        OptionError: another number of `layers`.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, options: ModelOptions) -> None:
        super().__init__()
        if len(options.layers) != len(COARSE_STRIDES):
            raise OptionError(f"layers needs {len(COARSE_STRIDES)} entries, one for each of the strides 32, 16 and 8.")
        dim = options.dim
        self.centres = nn.Parameter(torch.randn(dim, options.num_queries))
        self.level = [level for level, count in enumerate(options.layers) for _ in range(count)]
        self.layers = nn.ModuleList(KMeansLayer(channels[level], num_classes, options) for level in self.level)
        self.class_embedding = ConvNorm(dim, dim, dims=1, act=True)
        self.mask_embedding = ConvNorm(dim, dim, dims=1, act=True)
        self.predictor = PredictionHead(channels[-1], dim, options.feature_dim, num_classes)

    def forward(self, features: Sequence[Tensor], finest: Tensor) -> list[Prediction]:
        """All predictions, coarse to final, each at its own resolution."""
        centres = self.centres.expand(finest.shape[0], -1, -1)
        predictions = []
        for level, layer in zip(self.level, self.layers, strict=True):
            centres, prediction = layer(centres, features[level])
            predictions.append(prediction)
        final = self.predictor(self.class_embedding(centres), self.mask_embedding(centres), finest)
        return [*predictions, final]

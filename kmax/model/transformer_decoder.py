"""The k-means transformer decoder (kMaX-DeepLab, arXiv 2207.04044, section 3.3).

Letters: B batch, C channels, N queries, K classes without void, h×w feature size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from kmax.model.kmeans_layer import KMeansLayer
from kmax.model.layers import ConvNorm, prediction_conv, resize
from kmax.model.options import ModelOptions
from kmax.model.prediction_head import PredictionHead
from kmax.model.recompute import recompute
from kmax.model.semantic_head import ASPP
from kmax.options import OptionError
from kmax.structures import Prediction

COARSE_STRIDES = (32, 16, 8)
"""Strides of the features that the layers attend to."""

RELAXED = 2 / 3
"""ReMaX relaxes the predictions of this fraction of the layers, beginning with the first: four of six."""


class RelaxationHead(nn.Sequential):
    """ReMaX's auxiliary semantic head on a layer's pixels: (B, C, h, w) → logits (B, K+1, h, w), void last."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__(ASPP(dim, dim, 0.1, nn.GELU), prediction_conv(dim, num_classes + 1, dims=2))


class TransformerDecoder(nn.Module):
    """Layers from coarse to fine on the pixel decoder's features, then the final prediction.

    Args:
        channels: of the pixel decoder's features, coarse to fine; the finest is for the final prediction.
        options: `layers` gives the number of layers on each of the features at `COARSE_STRIDES`; with `remax`, the
            first layers have a semantic head, which is used in training only.

    Raises:
        OptionError: `layers` has not one entry per stride.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, options: ModelOptions) -> None:
        super().__init__()
        if len(options.layers) != len(COARSE_STRIDES):
            raise OptionError(f"layers needs {len(COARSE_STRIDES)} entries, one for each of the strides 32, 16 and 8.")
        dim = options.dim
        self.checkpointing = options.checkpointing
        self.residual = options.residual_assignment
        # Its name, British spelling included, is part of the checkpoint format.
        self.centres = nn.Parameter(torch.randn(dim, options.num_queries))  # (C, N)
        self.level = [level for level, count in enumerate(options.layers) for _ in range(count)]
        read_again = [level == following for level, following in zip(self.level, [*self.level[1:], -1], strict=True)]
        self.layers = nn.ModuleList(
            KMeansLayer(channels[level], num_classes, options, options.pixel_update and again)
            for level, again in zip(self.level, read_again, strict=True)
        )
        relaxed = round(len(self.level) * RELAXED) if options.remax else 0
        self.relaxation = nn.ModuleList(RelaxationHead(dim, num_classes) for _ in range(relaxed))
        self.class_embedding = ConvNorm(dim, dim, dims=1, act=nn.GELU)
        self.mask_embedding = ConvNorm(dim, dim, dims=1, act=nn.GELU)
        self.predictor = PredictionHead(channels[-1], dim, options.feature_dim, num_classes)

    def forward(
        self, features: Sequence[Tensor], finest: Tensor, aligned: bool
    ) -> tuple[list[Prediction], list[Tensor | None]]:
        """All predictions, coarse to final, each at its own resolution; and for each of them the logits (B, K+1, h, w)
        of its relaxation head, where there is one, in training."""
        centers, features = self.centres.expand(finest.shape[0], -1, -1), list(features)
        predictions: list[Prediction] = []
        relaxation: list[Tensor | None] = []
        for number, (level, layer) in enumerate(zip(self.level, self.layers, strict=True)):
            before = self._before(predictions, features[level], aligned)
            run = partial(recompute, layer) if self.checkpointing and self.training else layer
            centers, features[level], pixels, made = run(centers, features[level], before)
            head = self.relaxation[number] if self.training and number < len(self.relaxation) else None
            predictions += made
            relaxation += [None if head is None else head(pixels)] * len(made)
        final = self.predictor(self.class_embedding(centers), self.mask_embedding(centers), finest)
        return [*predictions, final], [*relaxation, None]

    def _before(self, predictions: Sequence[Prediction], feature: Tensor, aligned: bool) -> Tensor | None:
        """The last mask logits at the size of a feature, for layers that add them to their own."""
        if not self.residual or not predictions:
            return None
        return resize(predictions[-1].mask_logits, (feature.shape[-2], feature.shape[-1]), aligned)

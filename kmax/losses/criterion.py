"""All losses of a training step (kMaX-DeepLab, arXiv 2207.04044; MaX-DeepLab, arXiv 2012.00759, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kmax.losses.classification import classification_loss
from kmax.losses.instance_discrimination import instance_discrimination_loss
from kmax.losses.losses import Losses, PredictionLosses
from kmax.losses.mask import mask_losses
from kmax.losses.matching import Match, match
from kmax.losses.options import LossOptions
from kmax.losses.sampling import draw_pixels, log_rarity
from kmax.losses.semantic import semantic_loss
from kmax.numerics import without_autocast
from kmax.structures import Output, Prediction, Target


class Criterion(nn.Module):
    """The weighted losses of all predictions, under the one matching of the final prediction. No parameters.

    Args:
        num_classes: K, without void.
        options: factors, numbers of drawn pixels and temperatures.
    """

    def __init__(self, num_classes: int, options: LossOptions | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.options = options or LossOptions()

    def forward(self, output: Output, targets: Sequence[Target]) -> Losses:
        """The weighted losses of all predictions, coarse to final; `total` is what is minimized.

        Pixel features of coarse predictions may be left at their own stride. `semantic` is there if the output has
        semantic logits.

        Raises:
            ValueError: predictions and targets do not fit each other.
        """
        predictions, final = output.predictions, output.predictions[-1]
        self._check(predictions)
        with without_autocast(final.mask_logits):
            matched = match(final.class_logits, final.mask_logits, targets)
            mask, dice = mask_losses([p.mask_logits for p in predictions], matched)
            classes = classification_loss(torch.stack([p.class_logits for p in predictions]), matched)
            instance = self._instance_discrimination(predictions, matched)
            options = self.options
            weighted = PredictionLosses(
                options.class_weight * classes,
                options.mask_weight * mask,
                options.dice_weight * dice,
                options.instance_weight * instance,
            )
            return Losses(weighted, self._semantic(output, targets))

    def _instance_discrimination(self, predictions: Sequence[Prediction], matched: Match) -> Tensor:
        rarity = log_rarity(matched.owner, matched.segment.shape[1])  # (B, P)
        drawn = draw_pixels(
            rarity.expand(len(predictions), -1, -1), self.options.instance_temperature, self.options.samples
        )
        features = [prediction.pixel_feature for prediction in predictions]
        size = _map_size(predictions[-1])
        return instance_discrimination_loss(features, matched, drawn, size, self.options.similarity_temperature)

    def _semantic(self, output: Output, targets: Sequence[Target]) -> Tensor | None:
        if output.semantic_logits is None:
            return None
        size = _map_size(output.predictions[-1])
        loss = semantic_loss(
            output.semantic_logits, targets, size, self.options.semantic_temperature, self.options.samples
        )
        return self.options.semantic_weight * loss

    def _check(self, predictions: Sequence[Prediction]) -> None:
        classes = predictions[-1].class_logits.shape[2] - 1
        if classes != self.num_classes:
            raise ValueError(
                f"The criterion is for {self.num_classes} classes, the model predicts {classes}: build both from the "
                "same categories."
            )
        shapes = {tuple(prediction.mask_logits.shape) for prediction in predictions}
        if len(shapes) > 1:
            raise ValueError(f"Mask logits of shapes {sorted(shapes)}: resize those of all predictions to one size.")


def _map_size(prediction: Prediction) -> tuple[int, int]:
    return prediction.mask_logits.shape[2], prediction.mask_logits.shape[3]

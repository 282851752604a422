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
from kmax.losses.sampling import draw_pixels, log_rarity
from kmax.losses.semantic import semantic_loss
from kmax.numerics import without_autocast
from kmax.structures import Output, Prediction, Target


class Criterion(nn.Module):
    """The weighted losses of all predictions, under the one matching of the final prediction. No parameters.

    Args:
        num_classes: K, without void.
        class_weight, mask_weight, dice_weight, instance_weight, semantic_weight: factors of the losses.
        samples: pixels drawn per image for instance discrimination and for the semantic loss (fewer in small images).
        instance_temperature: the larger, the more often pixels of small segments are drawn; 0 is uniform.
        semantic_temperature: likewise for the semantic loss; None takes all pixels.
        similarity_temperature: divides the dot products of pixel features.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        class_weight: float = 3.0,
        mask_weight: float = 0.3,
        dice_weight: float = 3.0,
        instance_weight: float = 1.0,
        semantic_weight: float = 1.0,
        samples: int = 4096,
        instance_temperature: float = 1.5,
        semantic_temperature: float | None = 2.0,
        similarity_temperature: float = 0.3,
    ) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples={samples}: the losses need at least one pixel.")
        if similarity_temperature < 0.02:
            raise ValueError(f"similarity_temperature={similarity_temperature}: below 0.02, exp(1 / it) overflows.")
        self.num_classes = num_classes
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.instance_weight = instance_weight
        self.semantic_weight = semantic_weight
        self.samples = samples
        self.instance_temperature = instance_temperature
        self.semantic_temperature = semantic_temperature
        self.similarity_temperature = similarity_temperature

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
            weighted = PredictionLosses(
                self.class_weight * classes,
                self.mask_weight * mask,
                self.dice_weight * dice,
                self.instance_weight * instance,
            )
            return Losses(weighted, self._semantic(output, targets))

    def _instance_discrimination(self, predictions: Sequence[Prediction], matched: Match) -> Tensor:
        rarity = log_rarity(matched.owner, matched.segment.shape[1])  # (B, P)
        drawn = draw_pixels(rarity.expand(len(predictions), -1, -1), self.instance_temperature, self.samples)
        features = [prediction.pixel_feature for prediction in predictions]
        size = _map_size(predictions[-1])
        return instance_discrimination_loss(features, matched, drawn, size, self.similarity_temperature)

    def _semantic(self, output: Output, targets: Sequence[Target]) -> Tensor | None:
        if output.semantic_logits is None:
            return None
        size = _map_size(output.predictions[-1])
        loss = semantic_loss(output.semantic_logits, targets, size, self.semantic_temperature, self.samples)
        return self.semantic_weight * loss

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

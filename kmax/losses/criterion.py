"""All losses of a training step (kMaX-DeepLab, arXiv 2207.04044; MaX-DeepLab, arXiv 2012.00759, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kmax.losses.classification import classification_loss
from kmax.losses.instance_discrimination import instance_discrimination_loss
from kmax.losses.losses import Losses, PredictionLosses
from kmax.losses.mask import mask_losses
from kmax.losses.matching import Match, match_queries
from kmax.losses.options import LossOptions
from kmax.losses.prototypes import prototype_loss
from kmax.losses.relaxation import class_overlap, reclass, remask
from kmax.losses.sampling import draw_pixels, log_rarity
from kmax.losses.semantic import semantic_loss
from kmax.numerics import at_least_float32, without_autocast
from kmax.structures import Output, Prediction, Target


class Criterion(nn.Module):
    """The weighted losses of all predictions, under the one matching of the final prediction. No parameters.

    Args:
        num_classes: K, without void.
        options: factors, numbers of drawn pixels and temperatures.
        is_thing: for each class; needed for the contrast with prototypes.
    """

    is_thing: Tensor

    def __init__(
        self, num_classes: int, options: LossOptions | None = None, is_thing: Sequence[bool] | None = None
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.options = options or LossOptions()
        if self.options.instance_loss == "prototypes" and is_thing is None:
            raise ValueError("The contrast with prototypes needs to know which classes are things: give is_thing.")
        things = torch.tensor([*(is_thing or [True] * num_classes), False])  # (K+1,), void last
        self.register_buffer("is_thing", things, persistent=False)

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
            matched = match_queries(final.class_logits, final.mask_logits, targets)
            masks, soft_target = [p.mask_logits for p in predictions], None
            if output.relaxation:
                masks, soft_target = self._relaxed(output, matched, targets)
            mask, dice = mask_losses(masks, matched)
            classes = classification_loss(torch.stack([p.class_logits for p in predictions]), matched, soft_target)
            instance = self._instance_discrimination(predictions, matched, targets)
            options = self.options
            weighted = PredictionLosses(
                options.class_weight * classes,
                options.mask_weight * mask,
                options.dice_weight * dice,
                options.instance_weight * instance,
            )
            size = _map_size(final)
            semantic = self._semantic(output.semantic_logits, targets, size)
            losses = [self._semantic(logits, targets, size) for logits in output.relaxation]
            heads = [loss for loss in losses if loss is not None]
            return Losses(weighted, semantic, torch.stack(heads) if heads else None)

    def _instance_discrimination(
        self, predictions: Sequence[Prediction], matched: Match, targets: Sequence[Target]
    ) -> Tensor:
        features = [prediction.pixel_feature for prediction in predictions]
        if self.options.instance_loss == "prototypes":
            segments = max(1, max(len(target.labels) for target in targets))
            temperature = self.options.similarity_temperature
            return torch.stack([prototype_loss(f, matched, self.is_thing, segments, temperature) for f in features])
        rarity = log_rarity(matched.owner, matched.segment.shape[1])  # (B, P)
        drawn = draw_pixels(
            rarity.expand(len(predictions), -1, -1), self.options.instance_temperature, self.options.samples
        )
        size = _map_size(predictions[-1])
        return instance_discrimination_loss(features, matched, drawn, size, self.options.similarity_temperature)

    def _relaxed(self, output: Output, matched: Match, targets: Sequence[Target]) -> tuple[list[Tensor], Tensor]:
        """ReMaX: mask logits (B, N, h, w) of each of L predictions, and class targets (L, B, N, K+1)."""
        masks, soft_targets = [], []
        for prediction, logits in zip(output.predictions, output.relaxation, strict=True):
            overlap = at_least_float32(torch.zeros_like(prediction.class_logits))
            if logits is not None:
                overlap = class_overlap(prediction.mask_logits, targets, self.num_classes)
            soft_targets.append(reclass(matched.label, overlap, self.options.relaxation_rate))
            masks.append(prediction.mask_logits if logits is None else remask(prediction, logits))
        return masks, torch.stack(soft_targets)

    def _semantic(self, logits: Tensor | None, targets: Sequence[Target], size: tuple[int, int]) -> Tensor | None:
        if logits is None:
            return None
        options = self.options
        loss = semantic_loss(logits, targets, size, options.semantic_temperature, options.samples)
        return options.semantic_weight * loss

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

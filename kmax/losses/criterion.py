"""All losses of a training step (kMaX-DeepLab, arXiv 2207.04044; MaX-DeepLab, arXiv 2012.00759, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kmax.losses.classification import classification_loss
from kmax.losses.instance_discrimination import instance_discrimination_loss
from kmax.losses.mask import mask_losses
from kmax.losses.matching import Match, match
from kmax.losses.prototypes import prototype_loss
from kmax.losses.relaxation import class_overlap, reclass, remask
from kmax.losses.sampling import draw_pixels, log_rarity
from kmax.losses.semantic import semantic_loss
from kmax.structures import Output, Prediction, Target


Contrast = Callable[[Prediction], Tensor]


class Criterion(nn.Module):
    """The weighted losses of all predictions, under the one matching of the final prediction. No parameters.

    Args:
        num_classes: K, without void.
        class_weight, mask_weight, dice_weight, instance_weight, semantic_weight: factors of the losses.
        samples: pixels drawn per image for instance discrimination and for the semantic loss (fewer in small images).
        instance_temperature: the larger, the more often pixels of small segments are drawn; 0 is uniform.
        semantic_temperature: likewise for the semantic loss; None takes all pixels.
        similarity_temperature: divides the dot products of pixel features.
        instance_loss: `pixels`, contrast of drawn pixels (kMaX-DeepLab), or `prototypes`, of all thing pixels with the
            means of segments (MaX-DeepLab).
        relaxation_rate: η of ReMaX, how much a mask's overlap with a class counts in its class target; nothing without
            `model.remax`.
        is_thing: for each class; needed for `prototypes`.
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
        instance_loss: str = "pixels",
        relaxation_rate: float = 0.1,
        is_thing: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples={samples}: the losses need at least one pixel.")
        if similarity_temperature < 0.02:
            raise ValueError(f"similarity_temperature={similarity_temperature}: below 0.02, exp(1 / it) overflows.")
        if instance_loss == "prototypes" and is_thing is None:
            raise ValueError("The contrast with prototypes is that of thing pixels: say which classes are things.")
        self.num_classes = num_classes
        self.instance_loss = instance_loss
        self.relaxation_rate = relaxation_rate
        things = torch.tensor([*(is_thing or [True] * num_classes), False])  # (K+1,), void last
        self.register_buffer("is_thing", things, persistent=False)
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.instance_weight = instance_weight
        self.semantic_weight = semantic_weight
        self.samples = samples
        self.instance_temperature = instance_temperature
        self.semantic_temperature = semantic_temperature
        self.similarity_temperature = similarity_temperature

    def forward(self, output: Output, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Weighted losses by name, each a scalar; their sum is what is minimised.

        `class`, `mask`, `dice` and `instance_discrimination` are those of the final prediction, with `_0`, `_1`, …
        those of the coarser ones, whose pixel features may be left at their own stride. `semantic` is there if the
        output has semantic logits, `relaxation_0`, … with ReMaX.

        Raises:
            ValueError: predictions and targets do not fit each other.
        """
        *coarse, final = output.predictions
        self._check(output.predictions)
        with torch.autocast(final.mask_logits.device.type, enabled=False):
            matched = match(final.class_logits, final.mask_logits, targets)
            contrast = self._contrast(matched, targets)
            losses = self._prediction_losses(final, matched, contrast, "")
            size = (final.mask_logits.shape[2], final.mask_logits.shape[3])
            if output.semantic_logits is not None:
                losses["semantic"] = self._semantic(output.semantic_logits, targets, size)
            for i, prediction in enumerate(coarse):
                relaxation = output.relaxation[i] if output.relaxation else None
                soft_target = None
                if relaxation is not None:
                    losses[f"relaxation_{i}"] = self._semantic(relaxation, targets, size)
                    overlap = class_overlap(prediction.mask_logits, targets, self.num_classes)
                    soft_target = reclass(matched.label, overlap, self.relaxation_rate)
                    prediction = prediction._replace(mask_logits=remask(prediction, relaxation))
                losses |= self._prediction_losses(prediction, matched, contrast, f"_{i}", soft_target)
        return losses

    def _semantic(self, logits: Tensor, targets: Sequence[Target], size: tuple[int, int]) -> Tensor:
        """Loss `semantic` of (B, K+1 or K, h', w') logits, weighted."""
        return self.semantic_weight * semantic_loss(logits, targets, size, self.semantic_temperature, self.samples)

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

    def _prediction_losses(
        self,
        prediction: Prediction,
        matched: Match,
        contrast: Contrast,
        suffix: str,
        soft_target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        mask, dice = mask_losses(prediction.mask_logits, matched)
        return {
            f"class{suffix}": self.class_weight
            * classification_loss(prediction.class_logits, matched, soft_target),
            f"mask{suffix}": self.mask_weight * mask,
            f"dice{suffix}": self.dice_weight * dice,
            f"instance_discrimination{suffix}": self.instance_weight * contrast(prediction),
        }

    def _contrast(self, matched: Match, targets: Sequence[Target]) -> Contrast:
        """Loss `instance_discrimination` of any of the predictions, of the kind that is asked for."""
        if self.instance_loss == "prototypes":
            segments = max([1, *(len(target.labels) for target in targets)])
            return lambda prediction: prototype_loss(
                prediction.pixel_feature, matched, self.is_thing, segments, self.similarity_temperature
            )
        rarity = log_rarity(matched.owner, matched.segment.shape[1])

        def of_pixels(prediction: Prediction) -> Tensor:
            size = (prediction.mask_logits.shape[2], prediction.mask_logits.shape[3])
            drawn = draw_pixels(rarity, self.instance_temperature, self.samples)
            return instance_discrimination_loss(
                prediction.pixel_feature, matched, drawn, size, self.similarity_temperature
            )

        return of_pixels

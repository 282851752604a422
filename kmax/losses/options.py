"""The options of the losses. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from kmax.options import Options, option


@dataclass(frozen=True)
class LossOptions(Options):
    """Factors, numbers of drawn pixels and temperatures of the losses."""

    class_weight: float = option(3.0, "factor of the classification loss", at_least=0)
    mask_weight: float = option(0.3, "factor of the cross-entropy over queries", at_least=0)
    dice_weight: float = option(3.0, "factor of the dice loss", at_least=0)
    instance_weight: float = option(1.0, "factor of the instance discrimination", at_least=0)
    semantic_weight: float = option(1.0, "factor of the auxiliary semantic loss", at_least=0)
    samples: int = option(4096, "pixels drawn per image for instance discrimination and semantic loss", at_least=1)
    instance_temperature: float = option(
        1.5, "the larger, the more often pixels of small segments are drawn; 0 draws uniformly", at_least=0
    )
    semantic_temperature: float | None = option(2.0, "the same for the semantic loss; null: all pixels", at_least=0)
    # Below 0.02, exp(1 / temperature) overflows in float32.
    similarity_temperature: float = option(0.3, "divides the dot products of pixel features", at_least=0.02)
    instance_loss: str = option(
        "pixels",
        "contrast of drawn pixels (kMaX-DeepLab), or of all thing pixels with the prototypes of segments (MaX-DeepLab)",
        choices=("pixels", "prototypes"),
    )
    relaxation_rate: float = option(
        0.1, "model.remax: weight of a mask's overlap with a class in its class target", at_least=0, at_most=1
    )

    @property
    def drawn(self) -> int:
        """Pixels drawn per image, 0 if no loss draws: a training image must have more labeled pixels than that."""
        return self.samples if self.instance_loss == "pixels" or self.semantic_temperature is not None else 0

"""The LightningModule: model + criterion in training, model + post-processing + panoptic quality in validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from kmax.categories import Categories
from kmax.losses import Criterion
from kmax.metrics import PanopticQuality, PanopticQualityResult
from kmax.model import KMaXDeepLab
from kmax.optim import parameter_groups, warmup_poly
from kmax.postprocess import Sizes, Thresholds, panoptic
from kmax.structures import Batch, Output, PanopticMap, Prediction, Sample


class ValidationOutput(NamedTuple):
    """What a validation step hands to callbacks: one panoptic map and one cluster map (h, w) per image."""

    panoptic: tuple[PanopticMap, ...]
    clusters: tuple[Tensor, ...]


def normalize(images: Tensor, valid: Tensor) -> Tensor:
    """uint8 RGB (B, 3, H, W) → float in [−1, 1]; pixels outside `valid` (B, H, W) become 0."""
    return (images.float() - 127.5) / 127.5 * valid[:, None]


class KMaXModule(LightningModule):
    """A k-means mask transformer in training.

    Args:
        model, criterion: the network and its losses.
        categories: the classes, kept in the checkpoint.
        optimizer: `lr`, `weight_decay`, `backbone_multiplier`, `steps`, `warmup_steps`, `fused`.
        thresholds: post-processing in validation.
        config: the resolved configuration, kept in the checkpoint and read by nothing in here.
    """

    def __init__(
        self,
        model: KMaXDeepLab,
        criterion: Criterion,
        categories: Categories,
        optimizer: Mapping[str, Any],
        thresholds: Thresholds,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion
        self.categories = categories
        self.recipe = dict(optimizer)
        self.thresholds = thresholds
        self.config = dict(config or {})
        self.panoptic_quality = PanopticQuality(categories.is_thing)
        self.result: PanopticQualityResult | None = None

    def forward(self, batch: Batch) -> Output:
        """Run the model on the uint8 images of a batch."""
        return self.model(normalize(batch.images, batch.valid))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # type: ignore[override]
        losses = self.criterion(self(batch), batch.targets)
        total = torch.stack(list(losses.values())).sum()
        size = len(batch.targets)
        self.log("train/loss", total, prog_bar=True, batch_size=size)
        final = {f"train/{name}": value for name, value in losses.items() if not name[-1].isdigit()}
        self.log_dict(final, batch_size=size)
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> ValidationOutput:  # type: ignore[override]
        final = self(batch).predictions[-1]
        padded = (batch.images.shape[-2], batch.images.shape[-1])
        maps = tuple(self._panoptic(final, i, sample, padded) for i, sample in enumerate(batch.samples))
        self.panoptic_quality.update(maps, batch.samples)
        return ValidationOutput(maps, tuple(final.mask_logits.argmax(1).unbind()))

    def _panoptic(self, prediction: Prediction, index: int, sample: Sample, padded: tuple[int, int]) -> PanopticMap:
        height, width = sample.segment_map.shape
        return panoptic(
            prediction.class_logits[index],
            prediction.mask_logits[index],
            self.categories.is_thing,
            self.thresholds,
            Sizes.fit(padded, (height, width)),
        )

    def on_validation_epoch_end(self) -> None:
        self.result = self.panoptic_quality.compute()
        self.panoptic_quality.reset()
        numbers = {
            "pq": self.result.all.pq,
            "sq": self.result.all.sq,
            "rq": self.result.all.rq,
            "pq_things": self.result.things.pq,
            "pq_stuff": self.result.stuff.pq,
        }
        self.log_dict({f"val/{name}": value for name, value in numbers.items()}, rank_zero_only=False)

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        groups = parameter_groups(self.model, recipe["lr"], recipe["weight_decay"], recipe["backbone_multiplier"])
        optimizer = torch.optim.AdamW(groups, lr=recipe["lr"], fused=recipe["fused"] or None)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_poly(step, recipe["steps"], recipe["warmup_steps"])
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["kmax_config"] = self.config
        checkpoint["kmax_categories"] = self.categories.to_dict()

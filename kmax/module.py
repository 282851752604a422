"""The LightningModule: model + criterion in training, model + post-processing + metrics in validation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from kmax.categories import Categories
from kmax.checkpoint.own import CheckpointDict
from kmax.geometry import Sizes, content_cells
from kmax.inference.options import InferenceOptions
from kmax.inference.passes import Logits, postprocess_logits, predict, run_network
from kmax.inference.preprocess import normalize
from kmax.losses import Criterion, Losses
from kmax.metrics import MetricSuite, Report
from kmax.model import Network
from kmax.optim import follow_options, parameter_groups, warmup_poly
from kmax.optim.options import OptimizerOptions
from kmax.options import Plain
from kmax.structures import Batch, Output, PanopticMap, Segmentations


class ValidationOutput(NamedTuple):
    """The output of a validation step, for callbacks: the segmentations and a cluster map (h, w), without padding, of
    each image."""

    segmentations: tuple[Segmentations, ...]
    clusters: tuple[Tensor, ...]

    @property
    def panoptic(self) -> tuple[PanopticMap, ...]:
        """One panoptic map (H0, W0) per image."""
        return tuple(s.panoptic for s in self.segmentations)


class KMaXModule(LightningModule):
    """A k-means mask transformer in training and validation.

    Args:
        model: the network.
        categories: the classes, kept in the checkpoint.
        inference: thresholds and test-time options of validation.
        criterion: the losses; only training needs them.
        optimizer: the optimizer's options; only training needs them.
        metrics: what validation measures; default panoptic quality.
        config: all options of the run as plain containers, stored in the checkpoint and not used here.
    """

    def __init__(
        self,
        model: Network,
        categories: Categories,
        inference: InferenceOptions,
        criterion: Criterion | None = None,
        optimizer: OptimizerOptions | None = None,
        metrics: MetricSuite | None = None,
        config: Plain | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.categories = categories
        self.inference = inference
        self.criterion = criterion
        self.optimizer_options = optimizer
        self.metrics = metrics or MetricSuite(["pq"], categories)
        self.config = dict(config or {})
        self.result: Report | None = None

    def forward(self, batch: Batch) -> Output:
        """Run the model on the uint8 images of a batch."""
        output: Output = self.model(normalize(batch.images, batch.valid))
        return output

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        assert self.criterion is not None, "training needs losses"
        losses: Losses = self.criterion(self(batch), batch.targets)
        size = len(batch.targets)
        total = losses.total
        self.log("train/loss", total, prog_bar=True, batch_size=size)
        self.log_dict({f"train/{name}": value for name, value in losses.final.items()}, batch_size=size)
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> ValidationOutput:  # type: ignore[override]
        metrics, segmentations, clusters = self.metrics, [], []
        for logits in self._logits(batch):
            segmentations.append(
                postprocess_logits(
                    logits, self.categories.is_thing, self.inference, metrics.needs_semantic, metrics.needs_instances
                )
            )
            rows, columns = content_cells(logits.sizes, logits.mask_logits.shape[1:])
            clusters.append(logits.mask_logits[:, :rows, :columns].argmax(0))  # (N, h, w) → (h, w)
        metrics.update(segmentations, batch.samples)
        return ValidationOutput(tuple(segmentations), tuple(clusters))

    def _logits(self, batch: Batch) -> Iterator[Logits]:
        """The logits of each image: of the padded batch in one pass, or image by image with test-time options."""
        size = (batch.images.shape[-2], batch.images.shape[-1])
        if not self.inference.plain:
            for sample in batch.samples:
                yield predict(self.model, sample.image, size, self.inference, self.device)
            return
        final = run_network(self.model, batch.images, batch.valid)[-1]
        for classes, masks, sample in zip(final.class_logits, final.mask_logits, batch.samples, strict=True):
            yield Logits(classes, masks, Sizes.fit(size, sample.segment_map.shape))

    def on_validation_epoch_end(self) -> None:
        self.result = self.metrics.compute()
        self.metrics.reset()
        logged = {f"val/{name}": value for name, value in self.result.all.items() if value is not None}
        for part in ("things", "stuff"):
            row = getattr(self.result, part)
            logged |= {f"val/{name}_{part}": row[name] for name in ("pq", "boundary_pq") if name in row}
        counts = ("tp", "fp", "fn")
        self.log_dict({k: v for k, v in logged.items() if not k.endswith(counts)}, rank_zero_only=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        options = self.optimizer_options
        assert options is not None, "training needs an optimizer"
        groups = parameter_groups(
            self.model, options.lr, options.weight_decay, options.backbone_multiplier, options.layer_decay
        )
        fused = options.fused
        if fused is None:
            fused = self.device.type in ("cpu", "cuda") and not options.clip_norm
        optimizer = torch.optim.AdamW(groups, lr=options.lr, eps=options.eps, fused=fused or None)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_poly(step, options.steps, options.warmup_steps, options.warmup_start)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Restored optimizer and schedule follow the options of this run."""
        options = self.optimizer_options
        optimizer, schedule = self.optimizers(use_pl_optimizer=False), self.lr_schedulers()
        assert isinstance(optimizer, torch.optim.Optimizer), "one optimizer and one schedule"
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR), "one optimizer and one schedule"
        assert options is not None, "training needs an optimizer"
        groups = parameter_groups(self.model, options.lr, options.weight_decay, options.backbone_multiplier)
        follow_options(optimizer, schedule, groups, optimizer.defaults["fused"])

    def on_save_checkpoint(self, checkpoint: CheckpointDict) -> None:
        checkpoint["kmax_config"] = self.config
        checkpoint["kmax_categories"] = self.categories.to_dict()

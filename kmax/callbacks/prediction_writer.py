"""Predictions on disk in COCO's panoptic format: one PNG per image and one JSON for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from kmax.callbacks.carried import categories_of
from kmax.categories import Categories
from kmax.files import Json, replacing
from kmax.names import bare, unique_names, without_suffix
from kmax.results import category_table, encode_ids, panoptic_annotation
from kmax.structures import Batch


class PredictionWriter(Callback):
    """Write what validation predicts to `folder`/panoptic/*.png and `folder`/panoptic.json.

    Each rank writes a JSON part and PNG files under names of its own. At the end rank 0 joins the parts and renames the
    PNG files after their images, with as many of the folders as make the names unique.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._annotations: list[Json] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._annotations = []
        (self.folder / "panoptic").mkdir(parents=True, exist_ok=True)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for sample, prediction in zip(batch.samples, outputs.panoptic, strict=True):
            name = f".{trainer.global_rank}-{len(self._annotations)}.png"
            encoded = encode_ids(prediction.segment_map.cpu().numpy())
            Image.fromarray(encoded).save(self.folder / "panoptic" / name)
            categories = categories_of(pl_module)
            annotation = panoptic_annotation(prediction, sample.image_id, categories, name)
            self._annotations.append({**annotation, "image": sample.file_name or str(sample.image_id)})

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        part = self.folder / f"panoptic-{trainer.global_rank}.part"
        part.write_text(json.dumps(self._annotations))
        trainer.strategy.barrier("predictions")
        if trainer.is_global_zero:
            self._join(categories_of(pl_module), trainer.world_size)

    def _join(self, categories: Categories, world_size: int) -> None:
        parts = [self.folder / f"panoptic-{rank}.part" for rank in range(world_size)]
        annotations = [entry for part in parts for entry in json.loads(part.read_text())]
        names = unique_names([entry.pop("image") for entry in annotations], (bare, without_suffix, str))
        for entry, name in zip(annotations, names, strict=True):
            target = self.folder / "panoptic" / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "panoptic" / entry["file_name"]).replace(target)
            entry["file_name"] = f"{name}.png"
        whole = {
            "annotations": sorted(annotations, key=lambda entry: str(entry["image_id"])),
            "categories": category_table(categories),
        }
        with replacing(self.folder / "panoptic.json") as path:
            path.write_text(json.dumps(whole))
        for part in parts:
            part.unlink()

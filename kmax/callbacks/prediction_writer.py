"""Predictions on disk in COCO's panoptic format: one PNG per image and one JSON for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from kmax.categories import Categories
from kmax.structures import Batch, PanopticMap, Sample


def encode_ids(segment_map: np.ndarray) -> np.ndarray:
    """Segment ids (H, W) as COCO stores them in a PNG: (H, W, 3) uint8 with id = R + 256·G + 65536·B."""
    return np.stack([segment_map >> shift & 0xFF for shift in (0, 8, 16)], -1).astype(np.uint8)


def annotation(prediction: PanopticMap, sample: Sample, categories: Categories, file_name: str) -> dict[str, Any]:
    """One entry of `annotations` in COCO's panoptic JSON, with areas, boxes (x, y, w, h) and scores."""
    segment_map = prediction.segment_map.cpu().numpy()
    segments = []
    for segment in prediction.segments:
        rows, columns = np.nonzero(segment_map == segment.id)
        left, top = int(columns.min()), int(rows.min())
        segments.append(
            {
                "id": segment.id,
                "category_id": categories.ids[segment.label],
                "area": len(rows),
                "bbox": [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1],
                "iscrowd": 0,
                "score": round(segment.score, 6),
            }
        )
    return {"image_id": sample.image_id, "file_name": file_name, "segments_info": segments}


class PredictionWriter(Callback):
    """Write what validation predicts to `folder`/panoptic/*.png and `folder`/panoptic.json.

    Each rank writes its own JSON part and rank 0 joins them at the end.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._annotations: list[dict[str, Any]] = []

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
            name = f"{Path(sample.file_name or str(sample.image_id)).stem}.png"
            encoded = encode_ids(prediction.segment_map.cpu().numpy())
            Image.fromarray(encoded).save(self.folder / "panoptic" / name)
            self._annotations.append(annotation(prediction, sample, self._categories(pl_module), name))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        part = self.folder / f"panoptic-{trainer.global_rank}.part"
        part.write_text(json.dumps(self._annotations))
        trainer.strategy.barrier("predictions")
        if trainer.is_global_zero:
            self._join(self._categories(pl_module), trainer.world_size)

    @staticmethod
    def _categories(pl_module: LightningModule) -> Categories:
        categories = pl_module.categories
        assert isinstance(categories, Categories), "KMaXModule carries its categories"
        return categories

    def _join(self, categories: Categories, world_size: int) -> None:
        parts = [self.folder / f"panoptic-{rank}.part" for rank in range(world_size)]
        annotations = [entry for part in parts for entry in json.loads(part.read_text())]
        whole = {
            "annotations": sorted(annotations, key=lambda entry: str(entry["image_id"])),
            "categories": [
                {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)}
                for c in categories.classes
            ],
        }
        temporary = self.folder / "panoptic.json.tmp"
        temporary.write_text(json.dumps(whole))
        temporary.replace(self.folder / "panoptic.json")
        for part in parts:
            part.unlink()

"""The worst images of a validation as one HTML page."""

from __future__ import annotations

import bisect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from kmax.callbacks.carried import categories_of
from kmax.files import replacing
from kmax.metrics import Quality, image_quality
from kmax.structures import Batch
from kmax.visualization import GalleryImage, gallery_image, gallery_page

_Ranked = tuple[float, str, GalleryImage]
"""PQ and id, which rank the images the same way in any order and on any number of devices."""


class Gallery(Callback):
    """Write the images with the lowest PQ to the page `path`.

    Only these images are drawn and held, so that memory does not grow with the dataset. Images without a segment, true
    or predicted, have no PQ and are left out. Each rank keeps its own worst ones; rank 0 joins them.

    Args:
        path: the HTML file.
        images: how many are shown.
        title: what is evaluated, in plain text.
    """

    def __init__(self, path: str | Path, images: int = 24, title: str = "") -> None:
        self.path, self.images, self.title = Path(path), images, title
        self._worst: list[_Ranked] = []  # ascending
        self._seen = 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._worst, self._seen = [], 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        categories = categories_of(pl_module)
        for sample, prediction in zip(batch.samples, outputs.panoptic, strict=True):
            self._seen += 1
            quality = image_quality(prediction, sample, categories.num_classes)
            rank = (quality.pq, str(sample.image_id))
            if not quality.tp + quality.fp + quality.fn:
                continue
            if len(self._worst) == self.images and rank >= self._worst[-1][:2]:
                continue
            bisect.insort(self._worst, (*rank, gallery_image(sample, prediction, quality, categories)), key=_rank)
            del self._worst[self.images :]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"seen": self._seen, "images": [(*_rank(one), asdict(one[2])) for one in self._worst]}
        self._part(trainer.global_rank).write_text(json.dumps(content), encoding="utf-8")
        self._worst = []
        trainer.strategy.barrier("gallery")
        if trainer.is_global_zero:
            self._join(trainer.world_size)

    def _part(self, rank: int) -> Path:
        return self.path.with_name(f".{self.path.stem}-{rank}.part")

    def _join(self, world_size: int) -> None:
        files = [self._part(rank) for rank in range(world_size)]
        parts = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        entries = sorted((entry for part in parts for entry in part["images"]), key=_rank)[: self.images]
        images = [
            GalleryImage(**{**kept, "quality": Quality(**kept["quality"]), "pictures": tuple(kept["pictures"])})
            for _, _, kept in entries
        ]
        seen = sum(part["seen"] for part in parts)
        summary = f"{len(images)} of {seen} images, the lowest PQ first. Columns sort; a click enlarges a picture."
        with replacing(self.path) as temporary:
            temporary.write_text(gallery_page(images, self.title, summary), encoding="utf-8")
        for file in files:
            file.unlink()


def _rank(entry: Any) -> tuple[float, str]:
    return (entry[0], entry[1])

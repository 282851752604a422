"""Pictures of validation: image · ground truth · prediction · errors · cluster map, as PNG files and in the logger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kmax.callbacks.carried import categories_of
from kmax.files import replacing
from kmax.names import flat_name
from kmax.structures import Batch
from kmax.visualization import panel, panel_boxes
from kmax.visualization.film import BOXES


class Panels(Callback):
    """Draw the first `images` validation images of every validation in training into `folder`.

    Files are named `step{step}-{image id}.png` (ids that are not file names are converted); a logger with `log_image`
    (wandb) gets the same pictures. Each file says where its pictures are, from which `scripts/film.py` makes films.
    """

    def __init__(self, folder: str | Path, images: int = 4) -> None:
        self.folder = Path(folder)
        self.images = images
        self._panels: list[tuple[str, np.ndarray, str]] = []  # image id, picture, where its parts are
        self._drawing = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._panels = []
        # Weights that are loaded only to be measured again do not belong to the current step of training.
        self._drawing = trainer.is_global_zero and trainer.state.fn == "fit"

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self._drawing:
            return
        categories = categories_of(pl_module)
        for sample, prediction, clusters in zip(batch.samples, outputs.panoptic, outputs.clusters, strict=True):
            if len(self._panels) == self.images:
                return
            picture = panel(sample.image, sample, prediction, clusters.cpu().numpy(), categories)
            self._panels.append((str(sample.image_id), picture, json.dumps(panel_boxes(sample.image))))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._panels:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, picture, boxes in self._panels:
            notes = PngInfo()
            notes.add_itxt(BOXES, boxes)
            with replacing(self.folder / f"step{trainer.global_step:07d}-{flat_name(name)}.png") as path:
                Image.fromarray(picture).save(path, pnginfo=notes)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                names, pictures, _ = (list(column) for column in zip(*self._panels, strict=True))
                logger.log_image("val/panels", pictures, caption=names)
        self._panels = []

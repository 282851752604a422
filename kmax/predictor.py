"""From a checkpoint and an image to a panoptic map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kmax.build import module_from_checkpoint
from kmax.categories import Categories
from kmax.data import resize_and_pad
from kmax.module import KMaXModule, normalize
from kmax.postprocess import Sizes, Thresholds, panoptic
from kmax.structures import PanopticMap


class Predictor:
    """Panoptic segmentation of single images with a trained model.

    Args:
        module: a trained module.
        size: (H, W) that an image is fitted into and padded to.
        device: where the model runs.
    """

    def __init__(self, module: KMaXModule, size: tuple[int, int], device: str | torch.device = "cpu") -> None:
        self.module = module.to(device).eval()
        self.size = size
        self.thresholds: Thresholds = module.thresholds

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device | None = None) -> Predictor:
        """A predictor built from nothing but a checkpoint; on the GPU where there is one, unless told otherwise.

        Raises:
            FileNotFoundError, ValueError: no such file; damaged or foreign.
        """
        module = module_from_checkpoint(path)
        height, width = module.config["dataset"]["size"]
        return cls(module, (height, width), device or ("cuda" if torch.cuda.is_available() else "cpu"))

    @property
    def categories(self) -> Categories:
        """The classes of the model."""
        return self.module.categories

    @torch.inference_mode()
    def __call__(self, image: Any) -> PanopticMap:
        """Segment one image: a path, a PIL image, or a (H, W, 3) uint8 RGB array.

        Returns:
            A map of the image's own size, on the CPU.

        Raises:
            ValueError: not such an image.
        """
        array = _as_array(image)
        padded, valid = resize_and_pad(array, self.size)
        device = next(self.module.parameters()).device
        images = torch.as_tensor(padded).permute(2, 0, 1)[None].to(device)
        prediction = self.module.model(normalize(images, torch.as_tensor(valid)[None].to(device))).predictions[-1]
        result = panoptic(
            prediction.class_logits[0],
            prediction.mask_logits[0],
            self.categories.is_thing,
            self.thresholds,
            Sizes.fit(self.size, array.shape[:2]),
        )
        return PanopticMap(result.segment_map.cpu(), result.segments)


def _as_array(image: Any) -> np.ndarray:
    if isinstance(image, (str, Path)):
        try:
            image = Image.open(image)
            image.load()
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{image} cannot be read as an image: {error}.") from error
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"An image is a path, a PIL image or a (H, W, 3) uint8 RGB array; this is {found}.")
    return image

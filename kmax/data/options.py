"""The options of a dataset. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kmax.options import REQUIRED, OptionError, Options, option

MASK_AP = ("coco", "cityscapes")


@dataclass(frozen=True)
class DatasetOptions(Options):
    """What is read, and how training images are augmented."""

    name: str = option(REQUIRED, "of the dataset, in messages and results")
    root: str = option("data", "folder of the files")
    categories: str = option(REQUIRED, "its classes: coco, cityscapes, ade20k, shapes, or a JSON file")
    train: dict[str, Any] = option(REQUIRED, "the training set: a dataset class (_target_) and its arguments")
    val: dict[str, Any] = option(REQUIRED, "the validation set, likewise")
    size: tuple[int, int] = option(REQUIRED, "height and width of training crops and evaluation's input", at_least=32)
    scale: tuple[float, float] = option(REQUIRED, "bounds of the random scale, relative to the crop", above=0)
    flip: bool = option(True, "mirror half of the images")
    color_jitter: bool = option(True, "change brightness, contrast, saturation and hue at random")
    copy_paste: bool = option(True, "paste segments of a second image")
    target_stride: int = option(4, "stride of the targets, that of the finest masks", at_least=1)
    batch_size: int = option(REQUIRED, "images per optimizer step, over all devices", at_least=1)
    mask_ap: str = option("coco", "whose average precision evaluation measures", choices=MASK_AP)
    boundary_dilation: float = option(0.02, "width of boundaries as a part of the diagonal", above=0, at_most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale != REQUIRED and self.scale[0] > self.scale[1]:
            raise OptionError(f"scale=[{self.scale[0]:g},{self.scale[1]:g}] must be two factors, the smaller first.")

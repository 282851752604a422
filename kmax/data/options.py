"""The options of a dataset. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kmax.options import REQUIRED, OptionError, Options, option

MASK_AP = ("coco", "cityscapes")


@dataclass(frozen=True)
class DatasetOptions(Options):
    """What is read, and how training images are augmented."""

    name: str = option(REQUIRED, "name of the dataset, in messages and results")
    root: str = option("data", "folder of the files")
    categories: str = option(REQUIRED, "classes of the dataset: coco, cityscapes, ade20k, shapes, or a JSON file")
    train: dict[str, Any] = option(REQUIRED, "the training set: a dataset class (_target_) and its arguments")
    val: dict[str, Any] = option(REQUIRED, "the validation set, in the same form")
    size: tuple[int, int] = option(REQUIRED, "height and width of training crops and evaluation's input", at_least=32)
    scale: tuple[float, float] = option(REQUIRED, "bounds of the random scale, relative to the crop", above=0)
    scale_step: float | None = option(
        None, "draw the scale from a grid of this step, and round sizes down (MaX-DeepLab); null: uniformly", above=0
    )
    random_offset: bool = option(False, "place images smaller than the crop anywhere in it (MaX-DeepLab)")
    flip: bool = option(True, "mirror half of the images")
    color_jitter: bool = option(True, "change brightness, contrast, saturation and hue at random")
    color_operations: bool = option(False, "one of five pairs of color operations (MaX-DeepLab-L)")
    copy_paste: bool = option(True, "paste segments of a second image")
    label_crowd: bool = option(False, "crowd counts with its class in the semantic loss, and is not void (MaX-DeepLab)")
    small_thing_weight: float = option(
        1.0,
        "weight of pixels in things smaller than 4096 pixels of the crop, in the semantic loss (MaX-DeepLab-L: 3)",
        above=0,
    )
    target_stride: int = option(4, "stride of the targets, equal to that of the finest masks", at_least=1)
    batch_size: int = option(REQUIRED, "images per optimizer step, over all devices", at_least=1)
    mask_ap: str = option("coco", "definition of the average precision that evaluation measures", choices=MASK_AP)
    boundary_dilation: float = option(0.02, "width of boundaries as a fraction of the diagonal", above=0, at_most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_stride not in (2, 4):
            raise OptionError(f"target_stride={self.target_stride} must be 4, or 2 where the finest masks have it.")
        if self.copy_paste is True and self.random_offset is True:
            raise OptionError("random_offset=true does not go with copy_paste=true: switch one of them off.")
        if not isinstance(self.scale, str) and self.scale[0] > self.scale[1]:
            raise OptionError(f"scale=[{self.scale[0]:g},{self.scale[1]:g}] must be two factors, the smaller first.")

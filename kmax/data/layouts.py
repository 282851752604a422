"""Where the files of each dataset are below its root, packed or unpacked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kmax.data.storage import Folder, find_folder

CITYSCAPES_IMAGES = "leftImg8bit_trainvaltest.zip"
ADE20K_FOLDERS = {"train": "training", "val": "validation"}
ADE20K_IMAGES = ("ADEChallengeData2016.zip", "images.tar")


def name_in_json(image_id: int | str, file_name: str) -> str:
    """The image name that the JSON gives."""
    return file_name


def cityscapes_name(image_id: int | str, file_name: str) -> str:
    """The path of an image in its split; the official conversion writes a name without the city's folder."""
    return f"{str(image_id).split('_')[0]}/{image_id}_leftImg8bit.png"


@dataclass(frozen=True)
class SplitFiles:
    """One split: its images, its PNG files of segment ids and its JSON.

    `image_name(image id, file name in the JSON)` is the image's name in `images`.
    """

    images: Folder
    maps: Folder
    annotation_file: Path
    image_name: Callable[[int | str, str], str] = name_in_json


def coco(root: str | Path, split: str) -> SplitFiles:
    """COCO 2017; `split` is `train` or `val`.

    Raises:
        FileNotFoundError: a folder is missing (so in all functions of this module).
    """
    root = Path(root)
    folder = root / "annotations" / f"panoptic_{split}2017"
    return files_at(root / f"{split}2017", folder, folder.with_suffix(".json"))


def cityscapes(root: str | Path, split: str) -> SplitFiles:
    """Cityscapes after the panoptic conversion."""
    folder = Path(root) / "gtFine" / f"cityscapes_panoptic_{split}"
    images = find_folder(root, f"leftImg8bit/{split}", (CITYSCAPES_IMAGES,))
    return SplitFiles(images, find_folder(folder.parent, folder.name), folder.with_suffix(".json"), cityscapes_name)


def ade20k(root: str | Path, split: str) -> SplitFiles:
    """ADE20K after the panoptic conversion."""
    folder = Path(root) / f"ade20k_panoptic_{split}"
    images = find_folder(root, f"images/{ADE20K_FOLDERS[split]}", ADE20K_IMAGES)
    return SplitFiles(images, find_folder(folder.parent, folder.name), folder.with_suffix(".json"))


def files_at(images: str | Path, maps: str | Path, annotation_file: str | Path) -> SplitFiles:
    """A split from explicit folders, each of which may be a .zip or .tar of the same name instead."""
    images, maps = Path(images), Path(maps)
    return SplitFiles(
        find_folder(images.parent, images.name), find_folder(maps.parent, maps.name), Path(annotation_file)
    )

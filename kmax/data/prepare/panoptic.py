"""One split made panoptic: a PNG per image and one JSON in COCO's format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from kmax.categories import Categories
from kmax.data.layouts import ADE20K_FOLDERS, ADE20K_IMAGES
from kmax.data.prepare.pool import Journal, parallel
from kmax.data.prepare.segments import ade20k_segments, cityscapes_segments, decode_array, encode_ids, segments_info
from kmax.data.storage import Folder, find_folder
from kmax.files import Json, write_bytes, write_json

CITYSCAPES_ANNOTATIONS = "gtFine_trainvaltest.zip"
INSTANCE_SUFFIX = "_gtFine_instanceIds.png"
Segments = dict[int, tuple[int, bool]]


class Source(Protocol):
    """Official annotations of a split, image by image."""

    @property
    def categories(self) -> Categories:
        """The classes of the result."""

    def keys(self) -> Iterable[str]:
        """One per image, in the order of the JSON."""

    def names(self, key: str) -> tuple[str, str, str]:
        """Image id, image name as the JSON gives it, and name of the PNG."""

    def read(self, key: str) -> tuple[np.ndarray, Segments]:
        """Segment map (H, W), and category id and crowd by segment."""


@dataclass(frozen=True)
class CityscapesSource:
    """`gtFine/{split}`, packed or unpacked; names as the official conversion gives them."""

    annotations: Folder
    categories: Categories

    @classmethod
    def find(cls, root: Path, split: str, categories: Categories) -> CityscapesSource:
        return cls(find_folder(root, f"gtFine/{split}", (CITYSCAPES_ANNOTATIONS,)), categories)

    def keys(self) -> Iterable[str]:
        return (name for name in self.annotations if name.endswith(INSTANCE_SUFFIX))

    def names(self, key: str) -> tuple[str, str, str]:
        stem = key.rpartition("/")[2].removesuffix("_instanceIds.png")
        return stem.removesuffix("_gtFine"), f"{stem}_leftImg8bit.png", f"{stem}_panoptic.png"

    def read(self, key: str) -> tuple[np.ndarray, Segments]:
        where = self.annotations.where(key)
        try:
            return cityscapes_segments(decode_array(self.annotations.read(key), where), self.categories)
        except ValueError as error:
            raise _named(error, where) from error


@dataclass(frozen=True)
class ADE20KSource:
    """`images`, `annotations` and `annotations_instance` of a split, packed or unpacked."""

    images: Folder
    semantic: Folder
    instances: Folder
    categories: Categories

    @classmethod
    def find(cls, root: Path, split: str, categories: Categories) -> ADE20KSource:
        folder = ADE20K_FOLDERS[split]
        images = find_folder(root, f"images/{folder}", ADE20K_IMAGES)
        semantic = find_folder(root, f"annotations/{folder}", (ADE20K_IMAGES[0], "annotations.tar"))
        instances = find_folder(root, f"annotations_instance/{folder}", ("annotations_instance.tar",))
        return cls(images, semantic, instances, categories)

    def keys(self) -> Iterable[str]:
        return (name.removesuffix(".jpg") for name in self.images if name.endswith(".jpg"))

    def names(self, key: str) -> tuple[str, str, str]:
        return key, f"{key}.jpg", f"{key}.png"

    def read(self, key: str) -> tuple[np.ndarray, Segments]:
        where, name = self.instances.where(f"{key}.png"), f"{key}.png"
        semantic = decode_array(self.semantic.read(name), self.semantic.where(name))
        instances = decode_array(self.instances.read(name), where)
        if semantic.ndim != 2 or instances.shape[:2] != semantic.shape or instances.ndim != 3:
            raise ValueError(
                f"{where} is {_size(instances)} but {self.semantic.where(name)} is {_size(semantic)}: they belong to "
                "different releases; unpack or download both again."
            )
        try:
            return ade20k_segments(semantic, instances, self.categories)
        except ValueError as error:
            raise _named(error, where) from error


def _size(array: np.ndarray) -> str:
    return "×".join(str(length) for length in (*array.shape[1::-1], *array.shape[2:]))


def _named(error: ValueError, where: str) -> ValueError:
    """A finding about an array, as a sentence about its file; a sentence stays as it is."""
    found = str(error)
    return error if not found.startswith("has ") else ValueError(f"{where} {found}: unpack or download it again.")


@dataclass(frozen=True)
class _Conversion:
    """Writes the PNG of one image and returns its two entries in the JSON."""

    source: Source
    folder: Path

    def __call__(self, key: str) -> tuple[str, Json]:
        image_id, image_name, png = self.source.names(key)
        segment_map, segments = self.source.read(key)
        write_bytes(self.folder / png, encode_ids(segment_map))
        height, width = segment_map.shape
        image = {"id": image_id, "width": width, "height": height, "file_name": image_name}
        annotation = {
            "image_id": image_id,
            "file_name": png,
            "segments_info": segments_info(segment_map, segments),
        }
        return image_id, {"image": image, "annotation": annotation}


def convert_split(source: Source, folder: Path, title: str, workers: int) -> int:
    """Fill `folder` with PNG files and write the JSON of its name next to it; continues where an earlier run stopped.

    Returns:
        How many images the split has.

    Raises:
        FileNotFoundError, ValueError: a source is missing, damaged or contradictory; the disk is full.
    """
    annotation_file = folder.with_suffix(".json")
    keys = list(source.keys())
    if not keys:
        raise FileNotFoundError(f"{title}: there is no annotation to convert; see data/README.md for the files needed.")
    journal = Journal(annotation_file.with_name(f".{annotation_file.stem}.unfinished"))
    done = {**_entries(annotation_file), **journal.done}
    names = {key: source.names(key) for key in keys}
    todo = [key for key in keys if names[key][0] not in done or not (folder / names[key][2]).is_file()]
    if todo or not annotation_file.is_file():
        for image_id, entry in parallel(_Conversion(source, folder), todo, title, workers):
            journal.add(image_id, entry)
            done[image_id] = entry
        ordered = [done[names[key][0]] for key in keys]
        content = {
            "images": [entry["image"] for entry in ordered],
            "annotations": [entry["annotation"] for entry in ordered],
            "categories": source.categories.to_dict()["classes"],
        }
        write_json(annotation_file, content)
    journal.close()
    return len(keys)


def _entries(annotation_file: Path) -> Json:
    """The entries of an earlier JSON for each image; nothing if it is damaged."""
    try:
        content = json.loads(annotation_file.read_bytes())
        annotations = {annotation["image_id"]: annotation for annotation in content["annotations"]}
        return {i["id"]: {"image": i, "annotation": annotations[i["id"]]} for i in content["images"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}

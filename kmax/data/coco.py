"""Datasets in COCO's panoptic format: images, a PNG of segment ids per image, and one JSON.

Cityscapes and ADE20K, once prepared, have the same format and differ in where files lie.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from kmax.categories import Categories, load_categories
from kmax.data.places import Places, ade20k, at, cityscapes
from kmax.data.segment_maps import positions, present
from kmax.data.storage import Folder
from kmax.structures import Sample, Segment


class UnreadableImageError(ValueError):
    """An image file that is damaged; training may skip it."""


def read_image(folder: Folder, name: str) -> Image.Image:
    """An image file as RGB, greyscale and CMYK converted.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: the file is truncated or no image.
    """
    try:
        image = Image.open(io.BytesIO(folder.read(name)))
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except FileNotFoundError:
        raise
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        where = folder.where(name)
        raise UnreadableImageError(f"The image {where} is damaged ({error}): download or unpack it again.") from error


def read_segment_map(folder: Folder, name: str) -> np.ndarray:
    """Segment ids (H, W) int32 of a PNG, id = R + 256·G + 65536·B; 0 is unlabelled.

    Raises:
        FileNotFoundError, UnreadableImageError: as for images.
    """
    pixels = cv2.imdecode(np.frombuffer(folder.read(name), np.uint8), cv2.IMREAD_COLOR)  # refuses any damage
    if pixels is None:
        raise UnreadableImageError(f"The PNG {folder.where(name)} is damaged: prepare or unpack it again.")
    return (cv2.cvtColor(pixels, cv2.COLOR_BGR2RGBA).view("<u4")[..., 0] & 0xFFFFFF).view(np.int32)


@dataclass(frozen=True)
class _Index:
    """What the JSON says, as flat arrays that workers share instead of copying object by object.

    Image i has the segments `offset[i]` … `offset[i + 1]` of the `segment_*` arrays; `file_offset` cuts the names out
    of `file_bytes`, image name and annotation name in turn.
    """

    image_id: np.ndarray
    offset: np.ndarray
    segment_id: np.ndarray
    segment_label: np.ndarray
    segment_crowd: np.ndarray
    file_bytes: np.ndarray
    file_offset: np.ndarray

    def names(self, index: int) -> tuple[str, str]:
        cuts = self.file_offset[2 * index : 2 * index + 3]
        image, annotation = (self.file_bytes[a:b].tobytes().decode() for a, b in pairwise(cuts))
        return image, annotation


class CocoPanoptic:
    """Images with panoptic ground truth in COCO's format.

    Args:
        image_folder, annotation_folder: of the images and of the PNG files; each may be a .zip or .tar instead.
        annotation_file: the JSON with `images`, `annotations` and `categories`.
        categories: default COCO's 133.
        subset: use only the first so many images, or the images with these ids.

    Raises:
        FileNotFoundError: a folder or the JSON is missing.
        ValueError: the JSON is damaged or names a category that `categories` lacks.
    """

    def __init__(
        self,
        image_folder: str | Path,
        annotation_folder: str | Path,
        annotation_file: str | Path,
        categories: Categories | None = None,
        subset: int | Sequence[int] | None = None,
    ) -> None:
        places = at(image_folder, annotation_folder, annotation_file)
        self._read_index(places, categories or load_categories("coco"), subset)

    def _read_index(self, places: Places, categories: Categories, subset: int | Sequence[int] | None) -> None:
        self.places, self.categories = places, categories
        if not places.annotation_file.exists():
            raise FileNotFoundError(
                f"{places.annotation_file} is missing: set dataset.root to the folder described in data/README.md."
            )
        content = _read_json(places.annotation_file)
        self._index = _build_index(content, categories.label_of, places.annotation_file, subset)
        self._checked = np.zeros(len(self), bool)

    def __len__(self) -> int:
        return len(self._index.image_id)

    @property
    def image_ids(self) -> list[Any]:
        """One per image, as in the JSON."""
        return self._index.image_id.tolist()

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its ground truth.

        Raises:
            UnreadableImageError: the image is damaged.
            ValueError: PNG and JSON disagree.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        image_id = self._index.image_id[index].item()
        image_name, annotation_name = self._index.names(index)
        image_name = self.places.image_name(image_id, image_name)
        image = np.asarray(read_image(self.places.images, image_name))
        segment_map = read_segment_map(self.places.maps, annotation_name)
        where = self.places.maps.where(annotation_name)
        if segment_map.shape != image.shape[:2]:
            raise ValueError(
                f"{where} is {segment_map.shape[1]}×{segment_map.shape[0]} but its image {image_name} is "
                f"{image.shape[1]}×{image.shape[0]}: the annotations belong to other images."
            )
        segments = self._segments(index)
        if not self._checked[index]:  # once per process: the files stay as they are
            _check(segment_map, segments, where, self.places.annotation_file)
            self._checked[index] = True
        return Sample(image, segment_map, segments, image_id, image_name)

    def _segments(self, index: int) -> tuple[Segment, ...]:
        part = slice(self._index.offset[index], self._index.offset[index + 1])
        columns = (self._index.segment_id[part], self._index.segment_label[part], self._index.segment_crowd[part])
        return tuple(Segment(*row) for row in zip(*(column.tolist() for column in columns), strict=True))


class CityscapesPanoptic(CocoPanoptic):
    """Cityscapes after the official panoptic conversion (`gtFine/cityscapes_panoptic_{split}` and its JSON)."""

    def __init__(
        self,
        root: str | Path,
        split: str,
        categories: Categories | None = None,
        subset: int | Sequence[int] | None = None,
    ) -> None:
        self._read_index(cityscapes(root, split), categories or load_categories("cityscapes"), subset)


class ADE20KPanoptic(CocoPanoptic):
    """ADE20K with panoptic ground truth made of its semantic and instance annotations."""

    def __init__(
        self,
        root: str | Path,
        split: str,
        categories: Categories | None = None,
        subset: int | Sequence[int] | None = None,
    ) -> None:
        self._read_index(ade20k(root, split), categories or load_categories("ade20k"), subset)


def _check(segment_map: np.ndarray, segments: tuple[Segment, ...], png: str, annotation_file: Path) -> None:
    place = positions(segment_map, [segment.id for segment in segments])
    if np.count_nonzero(place) == np.count_nonzero(segment_map) and len({0, *present(place)}) == len(segments) + 1:
        return
    in_png = set(np.unique(segment_map).tolist()) - {0}
    in_json = {segment.id for segment in segments}
    if in_png != in_json:
        odd = min(in_png ^ in_json)
        where, other = (png, annotation_file) if odd in in_png else (annotation_file, png)
        raise ValueError(
            f"Segment {odd} of {Path(png).name} is in {where} but not in {other}: get both from one release."
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): download it again.") from error
    lacking = [key for key in ("images", "annotations") if not isinstance(content, dict) or key not in content]
    if lacking:
        raise ValueError(f"{path} has no {lacking[0]!r}: give a panoptic JSON file in COCO's format.")
    return content


def _build_index(
    content: dict[str, Any], label_of: dict[int, int], path: Path, subset: int | Sequence[int] | None
) -> _Index:
    """Images that have an annotation, in the order of `annotations`."""
    images = {image["id"]: image["file_name"] for image in content["images"]}
    annotations = content["annotations"]
    if isinstance(subset, int):
        annotations = annotations[:subset]
    elif subset is not None:
        annotations = [a for a in annotations if a["image_id"] in set(subset)]
    if not annotations:
        raise ValueError(f"{path} has no annotated image{'' if subset is None else ' of those that subset names'}.")
    names: list[bytes] = []
    segments: list[tuple[int, int, bool]] = []
    offset = [0]
    for annotation in annotations:
        if annotation["image_id"] not in images:
            raise ValueError(f"{path}: annotation {annotation['file_name']} belongs to no image of the file.")
        names += [images[annotation["image_id"]].encode(), annotation["file_name"].encode()]
        for s in annotation["segments_info"]:
            label = label_of.get(s["category_id"])
            if label is None:
                raise ValueError(
                    f"{path}: category {s['category_id']} in {annotation['file_name']} is not among the "
                    f"{len(label_of)} of this dataset: set dataset.categories to a JSON file that has it."
                )
            segments.append((s["id"], label, bool(s.get("iscrowd", 0))))
        offset.append(len(segments))
    table = np.array(segments, np.int64).reshape(-1, 3)
    return _Index(
        image_id=np.array([annotation["image_id"] for annotation in annotations]),
        offset=np.array(offset),
        segment_id=table[:, 0],
        segment_label=table[:, 1].astype(np.int32),
        segment_crowd=table[:, 2].astype(bool),
        file_bytes=np.frombuffer(b"".join(names), np.uint8),
        file_offset=np.cumsum([0, *map(len, names)]),
    )

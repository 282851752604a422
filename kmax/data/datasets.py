"""Datasets in COCO's panoptic format: images, a PNG of segment ids per image, and one JSON.

Cityscapes and ADE20K, once prepared, have the same format and differ in where files lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from kmax.categories import Categories, load_categories, match_categories
from kmax.data.index import Index, load_index
from kmax.data.layouts import SplitFiles, ade20k, cityscapes, files_at
from kmax.data.segment_maps import positions, present
from kmax.data.storage import Folder
from kmax.images import UnreadableImageError, is_turned, read_image, why_no_ids
from kmax.structures import Sample, Segment


def read_segment_map(folder: Folder, name: str) -> np.ndarray:
    """Segment ids (H, W) int32 of a PNG, id = R + 256·G + 65536·B; 0 is unlabeled.

    Raises:
        FileNotFoundError, UnreadableImageError: as for images.
    """
    content = np.frombuffer(folder.read(name), np.uint8)
    try:
        pixels = cv2.imdecode(content, cv2.IMREAD_COLOR)  # raises for any damage
    except cv2.error:  # an empty file, or one that is too large
        pixels = None
    if pixels is None:
        raise UnreadableImageError(f"The PNG {folder.where(name)} is damaged: prepare or unpack it again.")
    return (cv2.cvtColor(pixels, cv2.COLOR_BGR2RGBA).view("<u4")[..., 0] & 0xFFFFFF).view(np.int32)


CONVERT = "write the ids as RGB, or convert maps of classes or instances with scripts/prepare_own.py"


class PanopticDataset(Protocol):
    """The interface of a dataset: length, samples by index, and categories."""

    categories: Categories

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


class CocoPanoptic:
    """Images with panoptic ground truth in COCO's format.

    Args:
        image_folder, annotation_folder: of the images and of the PNG files; each may be a .zip or .tar instead.
        annotation_file: the JSON with `images`, `annotations` and `categories`.
        categories: default COCO's 133.
        subset: a number, to use only that many images from the beginning, or the ids of the images to use.

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
        subset: int | Sequence[int | str] | None = None,
    ) -> None:
        files = files_at(image_folder, annotation_folder, annotation_file)
        self._read_index(files, categories or load_categories("coco"), subset)

    def _read_index(self, files: SplitFiles, categories: Categories, subset: int | Sequence[int | str] | None) -> None:
        self.files, self.categories = files, categories
        self._index = load_index(files.annotation_file)
        self._chosen = _choose(self._index, subset, files.annotation_file)
        self._label_of = _labels(self._index, categories, files.annotation_file)
        self._checked = np.zeros(len(self._index), bool)

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def image_ids(self) -> list[int | str]:
        """One per image, as in the JSON."""
        return self._index.ids(self._chosen)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its ground truth.

        Raises:
            UnreadableImageError: the image is damaged.
            ValueError: PNG and JSON disagree.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        index = self._chosen[index]
        image_id = self._index.ids([index])[0]
        image_name, annotation_name = self._index.names(index)
        image_name = self.files.image_name(image_id, image_name)
        image = read_image(self.files.images, image_name)
        segment_map = read_segment_map(self.files.maps, annotation_name)
        where = self.files.maps.where(annotation_name)
        if segment_map.shape != image.shape[:2]:
            remedy = "the annotations belong to other images"
            if segment_map.shape == image.shape[1::-1] and is_turned(self.files.images.read(image_name)):
                remedy = "its orientation tag turns it; annotate it as viewers show it, or remove the tag"
            raise ValueError(
                f"{where} is {segment_map.shape[1]}×{segment_map.shape[0]} but its image {image_name} is "
                f"{image.shape[1]}×{image.shape[0]}: {remedy}."
            )
        segments = self._segments(index)
        if not self._checked[index]:  # once per process: the files stay as they are
            _check(segment_map, segments, self.files, annotation_name)
            self._checked[index] = True
        return Sample(image, segment_map, segments, image_id, image_name)

    def _segments(self, index: int) -> tuple[Segment, ...]:
        label_of = self._label_of
        return tuple(Segment(id_, label_of[category], crowd) for id_, category, crowd in self._index.segments(index))


def _choose(index: Index, subset: int | Sequence[int | str] | None, path: Path) -> Sequence[int]:
    """The positions in the index that `subset` selects."""
    if subset is None or isinstance(subset, int):
        chosen: Sequence[int] = range(len(index) if subset is None else min(subset, len(index)))
    else:
        wanted = set(subset)
        chosen = [n for n, image_id in enumerate(index.ids(range(len(index)))) if image_id in wanted]
    if not chosen:
        raise ValueError(f"{path} has no annotated image{'' if subset is None else ' of those that subset names'}.")
    return chosen


def _labels(index: Index, categories: Categories, path: Path) -> dict[int, int]:
    """Label by the ids that a file uses for its categories."""
    used = np.unique(index.segment_category).tolist()
    label_of = match_categories(index.categories, categories, used, path)
    unknown = set(used) - label_of.keys()
    if unknown:
        category = min(unknown)
        raise ValueError(
            f"{path}: category {category} in {index.annotation_with(category)} is not among the "
            f"{categories.num_classes} of this dataset: set the list of classes to a JSON file that has it."
        )
    return label_of


class CityscapesPanoptic(CocoPanoptic):
    """Cityscapes after the official panoptic conversion (`gtFine/cityscapes_panoptic_{split}` and its JSON)."""

    def __init__(
        self,
        root: str | Path,
        split: str,
        categories: Categories | None = None,
        subset: int | Sequence[int | str] | None = None,
    ) -> None:
        self._read_index(cityscapes(root, split), categories or load_categories("cityscapes"), subset)


class ADE20KPanoptic(CocoPanoptic):
    """ADE20K with panoptic ground truth made of its semantic and instance annotations."""

    def __init__(
        self,
        root: str | Path,
        split: str,
        categories: Categories | None = None,
        subset: int | Sequence[int | str] | None = None,
    ) -> None:
        self._read_index(ade20k(root, split), categories or load_categories("ade20k"), subset)


def _check(segment_map: np.ndarray, segments: tuple[Segment, ...], files: SplitFiles, name: str) -> None:
    """Whether the PNG `name` has the segments of the JSON, and no others."""
    position = positions(segment_map, [segment.id for segment in segments])
    found = len({0, *present(position)}) - 1
    if np.count_nonzero(position) == np.count_nonzero(segment_map) and found == len(segments):
        return
    in_png = set(np.unique(segment_map).tolist()) - {0}
    in_json = {segment.id for segment in segments}
    if in_png != in_json:
        png, annotation_file = files.maps.where(name), str(files.annotation_file)
        reason = why_no_ids(files.maps.read(name))
        remedy = f"{Path(png).name} is {reason}, where id = R + 256·G + 65536·B: {CONVERT}" if reason else ""
        odd = min(in_png ^ in_json)
        where, other = (png, annotation_file) if odd in in_png else (annotation_file, png)
        raise ValueError(
            f"Segment {odd} of {Path(png).name} is in {where} but not in {other}: "
            f"{remedy or 'get both from one release'}."
        )

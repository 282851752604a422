"""Semantic maps made of panoptic ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kmax.categories import Categories
from kmax.data.layouts import SplitFiles
from kmax.data.prepare.pool import parallel
from kmax.data.prepare.segments import decode_array, encode_png
from kmax.files import Json, write_bytes

SEMANTIC_VOID = 255


@dataclass(frozen=True)
class _Flatten:
    files: SplitFiles
    categories: Categories
    folder: Path

    def __call__(self, annotation: Json) -> None:
        where = self.files.maps.where(annotation["file_name"])
        rgb = decode_array(self.files.maps.read(annotation["file_name"]), where)
        ids = rgb.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        label_of = {s["id"]: self.categories.label_of[s["category_id"]] for s in annotation["segments_info"]}
        values, position = np.unique(ids, return_inverse=True)
        table = np.array([label_of.get(value, SEMANTIC_VOID) for value in values.tolist()], np.uint8)
        write_bytes(self.folder / annotation["file_name"], encode_png(table[position].reshape(ids.shape)))


def write_semantic(
    files: SplitFiles, annotations: list[Json], categories: Categories, folder: Path, workers: int
) -> int:
    """A PNG per image with the label 0 … K−1 of every pixel, crowd included, and 255 where there is no segment.

    Returns:
        How many files were written; those that exist already are left alone.

    Raises:
        KeyError: a category that `categories` lacks: check the tree first.
    """
    todo = [annotation for annotation in annotations if not (folder / annotation["file_name"]).is_file()]
    for _ in parallel(_Flatten(files, categories, folder), todo, folder.name, workers):
        pass
    return len(todo)

"""From official annotations to panoptic ones: pure functions on arrays.

H×W is the size of an image; 0 in a segment map is void.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from kmax.categories import Categories
from kmax.files import Json


@cache
def facts(dataset: str) -> Json:
    """Facts about the official release of a dataset."""
    release: Json = json.loads((Path(__file__).parent / "facts.json").read_text())[dataset]
    return release


def cityscapes_segments(
    instance_ids: np.ndarray, categories: Categories
) -> tuple[np.ndarray, dict[int, tuple[int, bool]]]:
    """Official `instanceIds` (H, W) → segment map (H, W) int32, and category id and crowd by segment.

    A value below 1000 is a label: one stuff segment, or a group of things that were not told apart (crowd). Any other
    is 1000 · label + number. Labels that are ignored in evaluation are void.

    Raises:
        ValueError: a value that no label has.
    """
    fact = facts("cityscapes")
    values, position = np.unique(instance_ids, return_inverse=True)
    table, segments = np.zeros(len(values), np.int32), {}
    for n, value in enumerate(values.tolist()):
        is_instance = value >= fact["instances_from"]
        label = value // fact["instances_from"] if is_instance else value
        if not 0 <= label <= fact["largest_label"]:
            raise ValueError(f"has the value {value}, which is no instance of Cityscapes")
        if label in categories.label_of:
            table[n] = value
            segments[value] = (label, not is_instance and categories.is_thing[categories.label_of[label]])
    return table[position].reshape(instance_ids.shape), segments


def ade20k_segments(
    semantic: np.ndarray, instances: np.ndarray, categories: Categories
) -> tuple[np.ndarray, dict[int, tuple[int, bool]]]:
    """Semantic (H, W) and instance (H, W, ≥ 2) annotations → segment map (H, W) int32, and category id and crowd by
    segment.

    Stuff comes from the semantic map, things from the instance map (red: one of 100 instance categories, green:
    number), which is on top; a pixel of a thing's class without an instance is void. As in the published
    preparation, except that areas count the pixels that are really left. A segment's id is 256 · class + number.

    Raises:
        ValueError: a value that neither map may have.
    """
    classes = np.zeros(101, np.int32)
    classes[1:] = facts("ade20k")["class_of_instance"]
    if semantic.max(initial=0) > len(categories.classes):
        raise ValueError(f"has the class {semantic.max()}, but there are {len(categories.classes)}")
    if instances[..., 0].max(initial=0) > 100:
        raise ValueError(f"has the instance category {instances[..., 0].max()}, but there are 100")
    number = instances[..., 1].astype(np.int32)
    if ((instances[..., 0] == 0) & (number > 0)).any():
        raise ValueError("has an instance without a category")
    stuff = np.array([0, *(0 if category.is_thing else category.id for category in categories.classes)])
    segment_map = np.where(number > 0, 256 * classes[instances[..., 0]] + number, 256 * stuff[semantic])
    ids = np.unique(segment_map)
    return segment_map.astype(np.int32), {i: (i // 256, False) for i in ids[ids > 0].tolist()}


def segments_info(segment_map: np.ndarray, segments: Mapping[int, tuple[int, bool]]) -> list[Json]:
    """COCO's entry of every segment, by ascending id: `id`, `category_id`, `area`, `bbox` (x, y, width, height) and
    `iscrowd`."""
    from scipy import ndimage  # takes longer to import than everything else here

    ids, position, areas = np.unique(segment_map, return_inverse=True, return_counts=True)
    boxes = ndimage.find_objects(position.reshape(segment_map.shape) + 1)
    entries = []
    for id_, area, (rows, columns) in zip(ids.tolist(), areas.tolist(), boxes, strict=True):
        if id_:
            category, crowd = segments[id_]
            box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
            entries.append({"id": id_, "category_id": category, "area": area, "bbox": box, "iscrowd": int(crowd)})
    return entries


def encode_ids(segment_map: np.ndarray) -> bytes:
    """A PNG file of segment ids (H, W): R + 256·G + 65536·B."""
    rgb = np.stack([segment_map & 255, segment_map >> 8 & 255, segment_map >> 16], -1).astype(np.uint8)
    return encode_png(rgb)


def encode_png(array: np.ndarray) -> bytes:
    """A PNG file of uint8 (H, W) or (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def decode_array(content: bytes, where: str) -> np.ndarray:
    """An annotation PNG as the array it stores.

    Raises:
        ValueError: damaged.
    """
    try:
        return np.asarray(Image.open(io.BytesIO(content)))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{where} is damaged ({error}): unpack or download it again.") from error

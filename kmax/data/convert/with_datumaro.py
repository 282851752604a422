"""Any other format, through Datumaro's readers (`pip install -e '.[formats]'`): its annotations, our rules."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from kmax.data.convert import shapes
from kmax.data.convert.source import OBJECT, ClassInfo, Item, Region, Shapes, Size, Source
from kmax.data.convert.tree import SPLITS, Tree


def find(tree: Tree, name: str = "") -> Source:
    """What Datumaro reads as `name`, e.g. `kitti`, or as the one format that it detects.

    Raises:
        ValueError: Datumaro is not installed, or cannot read the source.
    """
    dataset, name = _dataset(tree, name)
    names = [category.name for category in dataset.categories()[_annotation_type().label]]
    items, left_out = [], Counter[str]()
    for entry in dataset:
        path = getattr(entry.media, "path", "") if entry.media is not None else ""
        if not path or not Path(path).is_file():
            left_out["image that is missing"] += 1
            continue
        image_file = Path(path).resolve()
        named = [a for a in entry.annotations if getattr(a, "label", None) is not None]
        if len(named) < len(entry.annotations):
            left_out["annotation that Datumaro gives no class"] += len(entry.annotations) - len(named)
        records = tuple({"label": names[a.label], OBJECT: a, "shape": _fingerprint(a)} for a in named)
        key = (
            tree.image_files.key(image_file)
            if image_file.is_relative_to(tree.images)
            else f"{entry.subset}/{image_file.name}"
        )
        labels = frozenset(record["label"] for record in records)
        items.append(Item(key, image_file, labels, SPLITS.get(entry.subset.lower()), (), records))
    ordered = any(record[OBJECT].z_order for item in items for record in item.records if _is_area(record))
    return Source(
        f"{name} (read by Datumaro)",
        tuple(items),
        tuple(ClassInfo(label) for label in names),
        _read,
        is_ordered=ordered,
        left_out=left_out,
        in_one_process=True,
    )


def _fingerprint(annotation: Any) -> str:
    """A value that changes if the annotation changes, but not if it is read again."""
    shape = [annotation.get_bbox(), annotation.get_area()] if hasattr(annotation, "get_bbox") else []
    return f"{annotation.type.name} {shape} {annotation.attributes}"


def _annotation_type() -> Any:
    from datumaro.components.annotation import AnnotationType

    return AnnotationType


def _dataset(tree: Tree, name: str) -> tuple[Any, str]:
    try:
        from datumaro.components.dataset import Dataset
        from datumaro.components.environment import Environment
    except ImportError as error:
        raise ValueError(
            f"Datumaro is needed for this format but cannot be imported ({error}): pip install -e '.[formats]'."
        ) from error
    if not name:
        detected = Environment().detect_dataset(str(tree.source))
        if len(detected) != 1:
            found = ", ".join(detected) or "none"
            raise ValueError(
                f"Datumaro detects no single format in {tree.source} ({found}): give --format datumaro:NAME."
            )
        name = detected[0]
    try:
        return Dataset.import_from(str(tree.source), name), name
    except Exception as error:  # of any of its hundred readers
        raise ValueError(f"Datumaro cannot read {tree.source} as {name}: {error}") from error


def _is_area(record: Any) -> bool:
    types = _annotation_type()
    return record[OBJECT].type in (types.polygon, types.mask, types.ellipse)


def _read(item: Item, size: Size) -> Shapes:
    types = _annotation_type()
    regions, left_out = [], Counter[str]()
    for record in item.records:
        annotation = record[OBJECT]
        if not _is_area(record):
            left_out[f"{annotation.type.name}, which is no area"] += 1
            continue
        if annotation.type == types.mask:
            mask = np.asarray(annotation.image)
            if mask.shape != size:
                raise ValueError(f"a mask is {mask.shape[1]}×{mask.shape[0]} but its image {size[1]}×{size[0]}")
            rle: shapes.Rle | None = shapes.bitmap(mask, 0, 0, size)
        else:
            rle = shapes.polygons([list(annotation.as_polygon())], size)
        if rle is None:
            left_out["polygon without three points"] += 1
            continue
        group = str(annotation.group) if annotation.group else None
        crowd = bool(annotation.attributes.get("is_crowd")) and annotation.type != types.mask
        regions.append(Region(record["label"], rle, annotation.z_order, group, crowd))
    return Shapes(tuple(regions), left_out)

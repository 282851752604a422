"""Predictions as the evaluation servers of COCO and Cityscapes take them: one zip of a JSON and a folder of PNG."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from kmax.files import Json, replacing
from kmax.names import bare, flat_name, unique_names

_CITYSCAPES = "_leftImg8bit"  # of the names of its images, and not of their ids


def write_submission(annotations: Iterable[Json], pictures: Path, name: str, folder: Path) -> Path:
    """Write `folder`/panoptic_NAME_results.zip; returns it.

    Inside are panoptic_NAME_results.json and panoptic_NAME_results/*.png; a segment keeps its id and category, which
    is all that servers want to know.

    Args:
        annotations: entries of `annotations` in COCO's panoptic JSON.
        pictures: the folder of their PNG files.
        name: the split and the method, e.g. `test-dev2017_kmax`.
    """
    found = list(annotations)
    stem = f"panoptic_{name}_results"
    names = unique_names([Path(entry["file_name"]).with_suffix("").as_posix() for entry in found], (bare, flat_name))
    entries = [
        {
            "image_id": _image_id(entry["image_id"]),
            "file_name": f"{png}.png",
            "segments_info": [{key: s[key] for key in ("id", "category_id")} for s in entry["segments_info"]],
        }
        for entry, png in zip(found, names, strict=True)
    ]
    target = folder / f"{stem}.zip"
    with replacing(target) as path, ZipFile(path, "w", ZIP_STORED) as archive:  # PNG is compressed already
        archive.writestr(f"{stem}.json", json.dumps({"annotations": entries}), ZIP_DEFLATED)
        for entry, png in zip(found, names, strict=True):
            archive.write(pictures / entry["file_name"], f"{stem}/{png}.png")
    return target


def _image_id(image_id: int | str) -> int | str:
    return bare(image_id).removesuffix(_CITYSCAPES) if isinstance(image_id, str) else image_id

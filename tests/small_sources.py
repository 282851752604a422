"""Sources of two small images, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kmax.data.convert.options import Options
from kmax.data.convert.own import convert
from kmax.data.convert.writer import Written

H, W = 40, 60
SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]  # a polygon of ten by ten pixels


def picture(path: Path, orientation: int = 1, size: tuple[int, int] = (H, W)) -> Path:
    """A gray image of stored size (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (size[1], size[0]), (len(path.name), 90, 90))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def prepare(source: Path, **options: Any) -> tuple[Written, dict[str, np.ndarray], dict[str, list[str]]]:
    """Convert; what was written, and by stem the class names of every image's pixels and segments."""
    root = options.pop("root", source.parent / f"{source.name}-out")
    written = convert(Options(root=root, source=source, **options))
    names: dict[str, np.ndarray] = {}
    segments: dict[str, list[str]] = {}
    for split in ("train", "val"):
        file = root / "annotations" / f"panoptic_{split}.json"
        content = json.loads(file.read_text())
        classes = {c["id"]: c["name"] for c in content["categories"]}
        for annotation in content["annotations"]:
            ids = np.asarray(Image.open(file.with_suffix("") / annotation["file_name"])).astype(int)[..., 0]
            table = np.array(["", *(classes[s["category_id"]] for s in annotation["segments_info"])], object)
            names[annotation["image_id"]] = table[ids]
            segments[annotation["image_id"]] = [classes[s["category_id"]] for s in annotation["segments_info"]]
    return written, names, segments


def coco(folder: Path, names: str = "ab", **changes: Any) -> Path:
    """Images, the first with one cup."""
    for name in names:
        picture(folder / "images" / f"{name}.png")
    content = {
        "images": [{"id": n, "file_name": f"{name}.png", "height": H, "width": W} for n, name in enumerate(names)],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 0, "segmentation": [SQUARE]}],
        "categories": [{"id": 0, "name": "cup"}],
        **changes,
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return folder

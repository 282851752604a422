"""Small datasets in official layouts, made of the built-in shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kmax.data import ShapesDataset
from kmax.structures import Sample

SIZE = 96


def sample(index: int, seed: int = 0) -> Sample:
    """A picture of shapes with crowd and unlabelled pixels here and there."""
    return ShapesDataset(index + 1, seed=seed, min_size=SIZE, max_size=SIZE + 32)[index]


def id_png(segment_map: np.ndarray) -> Image.Image:
    """Ids (H, W) as COCO stores them: R + 256·G + 65536·B."""
    ids = segment_map.astype(np.int64)
    return Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8))


def coco_format(root: Path, train: int = 4, val: int = 2) -> Path:
    """A user's own data: no colours, ids that are not contiguous, thing and stuff."""
    classes = ShapesDataset(1).categories
    categories = [
        {"id": 10 * c.id, "name": f"my {c.name}", "isthing": int(c.is_thing)} for c in reversed(classes.classes)
    ]
    for split, count in (("train", train), ("val", val)):
        folder = root / "annotations" / f"panoptic_{split}"
        folder.mkdir(parents=True)
        (root / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for n in range(count):
            item = sample(n, seed=len(split))
            height, width = item.segment_map.shape
            Image.fromarray(item.image).save(root / split / f"{n}.jpg")
            id_png(item.segment_map * 300).save(folder / f"{n}.png")
            images.append({"id": n, "file_name": f"{n}.jpg", "height": height, "width": width})
            segments = [
                {
                    "id": 300 * s.id,
                    "category_id": 10 * classes.ids[s.label],
                    "iscrowd": int(s.crowd),
                    "area": int((item.segment_map == s.id).sum()),
                }
                for s in item.segments
            ]
            annotations.append({"image_id": n, "file_name": f"{n}.png", "segments_info": segments})
        content = {"images": images, "annotations": annotations, "categories": categories}
        folder.with_suffix(".json").write_text(json.dumps(content))
    return root

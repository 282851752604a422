"""Small datasets in official layouts, made of the built-in shapes."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kmax.categories import load_categories
from kmax.data import ShapesDataset
from kmax.structures import Sample

ROOT = Path(__file__).resolve().parents[1]
SIZE = 96


def sample(index: int, seed: int = 0) -> Sample:
    """A picture of shapes with crowd and unlabeled pixels here and there."""
    return ShapesDataset(index + 1, seed=seed, min_size=SIZE, max_size=SIZE + 32)[index]


def id_png(segment_map: np.ndarray) -> Image.Image:
    """Ids (H, W) as COCO stores them: R + 256·G + 65536·B."""
    ids = segment_map.astype(np.int64)
    return Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8))


def coco_format(root: Path, train: int = 4, val: int = 2) -> Path:
    """A user's own data: no colors, ids that are not contiguous, thing and stuff."""
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


def cityscapes(root: Path, train: int = 4, val: int = 2) -> Path:
    """The official layout of images and `gtFine`, with groups and ignored labels."""
    things = [category.id for category in load_categories("cityscapes").classes if category.is_thing]
    for split, count in (("train", train), ("val", val)):
        for n in range(count):
            item, rng = sample(n, seed=len(split)), np.random.default_rng(n)
            city = ("aachen", "bochum")[n % 2]
            values = np.zeros(item.segment_map.max() + 1, np.int32)
            for s in item.segments:
                thing = int(rng.choice(things))
                stuff = int(rng.choice([7, 8, 11, 21, 23]))
                group = s.crowd or (s.label < 6 and s.id % 3 == 2)
                values[s.id] = thing if group else thing * 1000 + s.id if s.label < 6 else stuff
            values[0] = (0, 4, 9, 18, 29, 30 * 1000 + 2)[n % 6]
            name = f"{city}_{n:06d}_000019"
            for kind in ("leftImg8bit", "gtFine"):
                (root / kind / split / city).mkdir(parents=True, exist_ok=True)
            Image.fromarray(item.image).save(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png")
            ids = Image.fromarray(values[item.segment_map].astype(np.uint16))
            ids.save(root / f"gtFine/{split}/{city}/{name}_gtFine_instanceIds.png")
    return root


def ade20k(root: Path, train: int = 4, val: int = 2) -> Path:
    """Images, semantic and instance annotations as published; the two disagree at places, as the real ones do."""
    classes = json.loads((ROOT / "kmax/data/prepare/facts.json").read_text())["ade20k"]["class_of_instance"]
    for split, long, count in (("train", "training", train), ("val", "validation", val)):
        for folder in ("images", "annotations", "annotations_instance"):
            (root / folder / long).mkdir(parents=True)
        for n in range(count):
            item, name = sample(n, seed=len(split)), f"ADE_{split}_{n + 1:08d}"
            semantic = np.zeros(item.segment_map.shape, np.uint8)
            instances = np.zeros((*semantic.shape, 3), np.uint8)
            for s in item.segments:
                mask, category = item.segment_map == s.id, 1 + 7 * s.label
                semantic[mask] = classes[category - 1] if s.label < 6 else (1, 2, 3, 4)[s.label - 6]
                if s.label < 6 and not s.crowd:
                    instances[np.roll(mask, 2, axis=1)] = (category, s.id, 0)
            Image.fromarray(item.image).save(root / "images" / long / f"{name}.jpg")
            Image.fromarray(semantic).save(root / "annotations" / long / f"{name}.png")
            Image.fromarray(instances).save(root / "annotations_instance" / long / f"{name}.png")
    return root


def pack(root: Path, archive: str, *members: str, top: str = "") -> None:
    """Move folders of `root` into an archive there, as it would be downloaded."""
    path = root / archive
    files = sorted(file for member in members for file in (root / member).rglob("*") if file.is_file())
    if path.suffix == ".tar":
        with tarfile.open(path, "w") as tar:
            for file in files:
                tar.add(file, f"{top}{file.relative_to(root)}")
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in files:
                packed.write(file, f"{top}{file.relative_to(root)}")
    for member in members:
        shutil.rmtree(root / member)

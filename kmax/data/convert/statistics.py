"""Statistics of a prepared folder, and warnings about what will hurt training."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from kmax.categories import Categories, load_categories
from kmax.data.convert.prepared import SPLITS, annotation_file

FEW_SEGMENTS = 10
SMALL_AREA = 64  # pixels at the training size: four of the finest mask's


@dataclass(frozen=True)
class ClassStatistics:
    """One class: images and segments by split, and the median area as a fraction of the image, both splits."""

    name: str
    is_thing: bool
    image_counts: dict[str, int]
    segments: dict[str, int]
    median_area: float
    small: int  # segments below SMALL_AREA at the training size, both splits


@dataclass(frozen=True)
class Statistics:
    """A prepared folder: `sizes` holds (width, height) of every image, `most_segments` the image that has most."""

    classes: tuple[ClassStatistics, ...]
    image_counts: dict[str, int]
    sizes: tuple[tuple[int, int], ...]
    most_segments: tuple[str, int]
    size: int
    queries: int


@dataclass(frozen=True)
class _Segment:
    split: str
    image_file: str
    label: int
    area: float  # of the image
    is_small: bool


def statistics(root: Path, size: int = 641, queries: int = 128) -> Statistics:
    """Read both JSON files of a prepared folder.

    Args:
        size: the longer side of an image in training, at scale 1.
        queries: how many segments the model can find.

    Raises:
        FileNotFoundError, ValueError: a JSON is missing or damaged.
    """
    categories = load_categories(str(annotation_file(root, "train")))
    image_counts, sizes, segments = {}, [], []
    for split in SPLITS:
        content = _content(annotation_file(root, split))
        images = {image["id"]: image for image in content["images"]}
        image_counts[split] = len(images)
        sizes += [(image["width"], image["height"]) for image in images.values()]
        for annotation in content["annotations"]:
            image = images[annotation["image_id"]]
            scale = (size / max(image["width"], image["height"])) ** 2
            for entry in annotation["segments_info"]:
                area, label = entry["area"], categories.label_of[entry["category_id"]]
                part = area / (image["width"] * image["height"])
                segments.append(
                    _Segment(split, f"{split}/{image['file_name']}", label, part, area * scale < SMALL_AREA)
                )
    counts: dict[str, int] = defaultdict(int)
    for segment in segments:
        counts[segment.image_file] += 1
    most = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return Statistics(_classes(categories, segments), image_counts, tuple(sizes), most, size, queries)


def _content(file: Path) -> dict[str, list]:  # type: ignore[type-arg]  # of JSON objects
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: make it with scripts/prepare_own.py SOURCE --root ….")
    content: dict[str, list] = json.loads(file.read_bytes())  # type: ignore[type-arg]
    return content


def _classes(categories: Categories, segments: list[_Segment]) -> tuple[ClassStatistics, ...]:
    by_label: dict[int, list[_Segment]] = defaultdict(list)
    for segment in segments:
        by_label[segment.label].append(segment)
    found = []
    for label, category in enumerate(categories.classes):
        own = by_label[label]
        found.append(
            ClassStatistics(
                category.name,
                category.is_thing,
                {split: len({s.image_file for s in own if s.split == split}) for split in SPLITS},
                {split: sum(s.split == split for s in own) for split in SPLITS},
                median(s.area for s in own) if own else 0.0,
                sum(s.is_small for s in own),
            )
        )
    return tuple(found)


def warnings(found: Statistics) -> list[str]:
    """What will hurt training, one sentence each."""
    few = [entry for entry in found.classes if entry.segments["train"] < FEW_SEGMENTS]
    unseen = [entry.name for entry in found.classes if entry.image_counts["train"] and not entry.image_counts["val"]]
    sentences = []
    if few:
        named = _listed([f"{entry.name} {entry.segments['train']}" for entry in few])
        sentences.append(
            f"fewer than {FEW_SEGMENTS} training segments: {named}; label more, or leave them out with --classes."
        )
    if unseen:
        sentences.append(f"in no image for validation, so that their PQ is not measured: {_listed(unseen)}.")
    small, total = sum(c.small for c in found.classes), sum(sum(c.segments.values()) for c in found.classes)
    if small:
        sentences.append(
            f"{small} of {total} segments have fewer than {SMALL_AREA} pixels at {found.size}²: hard to learn; "
            "train at a larger size, or cut the images into tiles."
        )
    name, most = found.most_segments
    if most > found.queries:
        sentences.append(f"{name} has {most} segments, more than the number of queries, {found.queries}: raise it.")
    return sentences


def _listed(names: list[str], shown: int = 12) -> str:
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest


def table(found: Statistics) -> str:
    """Classes, images and sizes as text."""
    width = max(len("class"), *(len(entry.name) for entry in found.classes))
    lines = [f"{'class':{width}}  kind   images (val)   segments (val)   median area   small"]
    for entry in found.classes:
        image_counts, segments = (f"{n['train']:6d} ({n['val']})" for n in (entry.image_counts, entry.segments))
        kind = "thing" if entry.is_thing else "stuff"
        area = f"{100 * entry.median_area:.2g} %"
        lines.append(
            f"{entry.name:{width}}  {kind}  {image_counts:>14}   {segments:>14}   {area:>11}   {entry.small:5d}"
        )
    widths, heights = sorted(w for w, _ in found.sizes), sorted(h for _, h in found.sizes)
    sizes = f"{widths[0]}×{heights[0]} to {widths[-1]}×{heights[-1]}" if found.sizes else "none"
    lines.append(
        f"{found.image_counts['train']} images for training, {found.image_counts['val']} for validation, {sizes}."
    )
    return "\n".join(lines)

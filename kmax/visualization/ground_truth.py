"""Ground truth to check before training: a sheet of overlays, counts, and warnings."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from kmax.categories import load_categories
from kmax.data import CocoPanoptic
from kmax.data.convert.prepared import SPLITS, annotation_file
from kmax.data.convert.statistics import statistics, table, warnings
from kmax.files import replacing
from kmax.visualization.layout import fit_image, sheet
from kmax.visualization.palette import PAPER
from kmax.visualization.panoptic import draw_panoptic, with_legend

SIDE = 480
COLUMNS = 3
NAME = "preview.png"


def preview(root: Path, count: int, size: int = 641, queries: int = 128) -> str:
    """Draw `count` images of a prepared folder with their ground truth into `root/preview.png`.

    Returns:
        Counts per class, warnings, and where the sheet is, as text.

    Raises:
        FileNotFoundError, ValueError: the folder is not prepared, or damaged.
    """
    found = statistics(root, size, queries)
    lines = [table(found), *(f"Warning: {sentence}" for sentence in warnings(found))]
    cells = [(name, _cell(dataset, index)) for name, dataset, index in _chosen(root, count)]
    if cells:
        rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
        with replacing(root / NAME) as temporary:
            Image.fromarray(sheet(rows, SIDE)).save(temporary)
        lines.append(f"{len(cells)} images with their ground truth: {root / NAME}")
    return "\n".join(lines)


def _chosen(root: Path, count: int) -> list[tuple[str, CocoPanoptic, int]]:
    """Images that show every class as often as possible, rare classes first: name, dataset, index."""
    categories = load_categories(str(annotation_file(root, "train")))
    labels: dict[tuple[str, int], set[int]] = {}
    names, datasets = {}, {}
    for split in SPLITS:
        file = annotation_file(root, split)
        content = json.loads(file.read_bytes())
        files = {image["id"]: image["file_name"] for image in content["images"]}
        if content["annotations"]:
            datasets[split] = CocoPanoptic(root / split, file.with_suffix(""), file, categories)
        for index, annotation in enumerate(content["annotations"]):  # the order of the dataset, too
            names[split, index] = f"{split}/{files[annotation['image_id']]}"
            labels[split, index] = {segment["category_id"] for segment in annotation["segments_info"]}
    seen: Counter[int] = Counter()
    chosen: list[tuple[str, int]] = []
    while labels and len(chosen) < count:
        best = max(labels, key=lambda key: sum(1 / (1 + seen[label]) ** 2 for label in labels[key]))
        seen.update(labels.pop(best))
        chosen.append(best)
    return [(names[key], datasets[key[0]], key[1]) for key in sorted(chosen)]


def _cell(dataset: CocoPanoptic, index: int) -> np.ndarray:
    """One overlay with its legend on a canvas (SIDE, 3·SIDE/2, 3), so that all cells have one size."""
    sample = dataset[index]
    small = fit_image(sample.image, SIDE)
    picture = with_legend(draw_panoptic(small, sample, dataset.categories), sample.segments, dataset.categories)
    canvas = np.full((SIDE, SIDE * 3 // 2, 3), PAPER, np.uint8)
    picture = picture[:, : canvas.shape[1]]
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    return canvas

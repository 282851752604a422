"""Files in other tools' layouts, made from images whose panoptic truth is known."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco

import trees
from kmax.categories import load_categories
from kmax.data import CocoPanoptic, ShapesDataset
from kmax.structures import Sample

LEAST = 30  # pixels of a part that is worth a polygon


@dataclass(frozen=True)
class Part:
    """A segment of the truth: its value in the map, class, and kind."""

    id: int
    name: str
    is_thing: bool
    crowd: bool


@dataclass(frozen=True)
class Truth:
    """An image (H, W, 3) and its panoptic truth (H, W), 0 = unlabeled."""

    name: str
    image: np.ndarray
    segment_map: np.ndarray
    parts: tuple[Part, ...]

    @property
    def things(self) -> Iterator[Part]:
        """Countable objects alone."""
        return (part for part in self.parts if part.is_thing and not part.crowd)

    def mask(self, part: Part) -> np.ndarray:
        """The pixels (H, W) of a segment."""
        return self.segment_map == part.id


def _truth(name: str, sample: Sample, dataset: Any) -> Truth:
    classes = dataset.categories.classes
    parts = [Part(s.id, classes[s.label].name, classes[s.label].is_thing, s.crowd) for s in sample.segments]
    return Truth(name, sample.image, sample.segment_map.astype(np.int32), tuple(parts))


def synthetic(count: int = 5) -> list[Truth]:
    """Built-in shapes."""
    return [_truth(f"{n}.png", trees.sample(n), ShapesDataset(1)) for n in range(count)]


def real(sample_data: Path, count: int = 6) -> list[Truth]:
    """Photos of COCO."""
    folder = sample_data / "coco128"
    maps = folder / "annotations" / "panoptic_val2017"
    dataset = CocoPanoptic(folder / "val2017", maps, maps.with_suffix(".json"), load_categories("coco"))
    return [_truth(Path(dataset[n].file_name).with_suffix(".png").name, dataset[n], dataset) for n in range(count)]


def pictures(folder: Path, truths: Sequence[Truth]) -> None:
    """Write the images without loss."""
    folder.mkdir(parents=True, exist_ok=True)
    for truth in truths:
        Image.fromarray(truth.image).save(folder / truth.name)


def thing_names(truths: Sequence[Truth]) -> list[str]:
    """Classes of things, by first occurrence."""
    return list(dict.fromkeys(part.name for truth in truths for part in truth.things))


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons (n, 2) around the pieces of a mask."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [line[:, 0] for line in found if len(line) >= 8 and cv2.contourArea(line) >= LEAST]


def labelme(root: Path, truths: Sequence[Truth], kind: str = "polygon") -> None:
    """A JSON beside each image; `kind` is polygon or mask. Pieces of an object share a group."""
    pictures(root, truths)
    for truth in truths:
        shapes = []
        for part in truth.things:
            mask = truth.mask(part)
            base = {"label": part.name, "group_id": part.id, "flags": {}}
            if kind == "mask":
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                points = [[int(columns[0]), int(rows[0])], [int(columns[-1]), int(rows[-1])]]
                shapes.append({**base, "shape_type": "mask", "points": points, "mask": encoded(inside)})
            else:
                shapes += [{**base, "shape_type": "polygon", "points": line.tolist()} for line in outlines(mask)]
        content = labelme_file(truth, shapes)
        (root / truth.name).with_suffix(".json").write_text(json.dumps(content))


def labelme_file(truth: Truth, shapes: list[dict[str, Any]]) -> dict[str, Any]:
    """What Labelme 5 writes."""
    height, width = truth.segment_map.shape
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": truth.name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def encoded(mask: np.ndarray) -> str:
    """A mask as Labelme stores it: a PNG in base 64."""
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def coco_content(truths: Sequence[Truth], kind: str = "polygon", first: int = 0) -> dict[str, Any]:
    """COCO instances; `kind` is polygon, counts (a list of runs) or compressed."""
    names = thing_names(truths)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, truth in enumerate(truths):
        height, width = truth.segment_map.shape
        images.append({"id": image_id, "file_name": truth.name, "height": height, "width": width})
        for part in truth.parts:
            if not part.is_thing or (part.crowd and kind == "polygon"):
                continue
            mask = truth.mask(part)
            segmentation: Any = [line.ravel().tolist() for line in outlines(mask)]
            if kind != "polygon":
                code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
                segmentation = {"size": [height, width], "counts": code["counts"].decode()}
                if kind == "counts":
                    segmentation["counts"] = runs(mask.ravel(order="F"))
            if segmentation and part.name in names:
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": image_id,
                        "category_id": first + names.index(part.name),
                        "segmentation": segmentation,
                        "area": int(mask.sum()),
                        "bbox": [0, 0, 1, 1],
                        "iscrowd": int(part.crowd),
                    }
                )
    categories = [{"id": n, "name": name, "supercategory": ""} for n, name in enumerate(names, first)]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def runs(values: np.ndarray) -> list[int]:
    """Lengths of alternating runs that start with zeros."""
    places = np.flatnonzero(np.diff(values.astype(np.int8))) + 1
    lengths = np.diff(np.concatenate([[0], places, [len(values)]])).tolist()
    return [0, *lengths] if values[0] else lengths


def coco_instances(root: Path, truths: Sequence[Truth], kind: str = "polygon", first: int = 0) -> None:
    """`annotations/instances_default.json` and `images/`, as CVAT writes them."""
    pictures(root / "images", truths)
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_default.json").write_text(json.dumps(coco_content(truths, kind, first)))


def cvat(root: Path, truths: Sequence[Truth], kind: str = "polygon") -> None:
    """`annotations.xml` and `images/`; `kind` is polygon or mask."""
    pictures(root / "images", truths)
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations><version>1.1</version><meta><job><labels>"]
    for n, name in enumerate(thing_names(truths)):
        lines.append(f"<label><name>{name}</name><color>#{n + 16:02x}f020</color><attributes/></label>")
    lines.append("</labels></job></meta>")
    for number, truth in enumerate(truths):
        height, width = truth.segment_map.shape
        name = quoteattr(truth.name)
        lines.append(f'<image id="{number}" name={name} width="{width}" height="{height}">')
        for order, part in enumerate(truth.things):
            common = f'label={quoteattr(part.name)} source="manual" occluded="0" z_order="{order}" group_id="{part.id}"'
            mask = truth.mask(part)
            if kind == "mask":
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                code = ", ".join(map(str, runs(inside.ravel())))
                box = f'left="{columns[0]}" top="{rows[0]}" width="{inside.shape[1]}" height="{inside.shape[0]}"'
                lines.append(f'<mask {common} rle="{code}" {box}></mask>')
            for line in outlines(mask) if kind == "polygon" else ():
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in line)
                lines.append(f'<polygon {common} points="{points}"></polygon>')
        lines.append("</image>")
    (root / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))


def yolo(root: Path, truths: Sequence[Truth], val: int = 2) -> None:
    """`data.yaml` as Roboflow writes it, with paths that miss the folder by one level, and two splits."""
    names = thing_names(truths)
    for split, part in (("train", truths[val:]), ("valid", truths[:val])):
        pictures(root / split / "images", part)
        (root / split / "labels").mkdir()
        for truth in part:
            height, width = truth.segment_map.shape
            lines = []
            for segment in truth.things:
                for line in outlines(truth.mask(segment)):
                    numbers = (line / (width, height)).ravel()
                    lines.append(" ".join([str(names.index(segment.name)), *(f"{n:.6f}" for n in numbers)]))
            (root / split / "labels" / truth.name).with_suffix(".txt").write_text("\n".join(lines))
    text = f"train: ../train/images\nval: ../valid/images\nnc: {len(names)}\nnames: {json.dumps(names)}\n"
    (root / "data.yaml").write_text(text)


def semantic(root: Path, truths: Sequence[Truth], kind: str = "gray") -> list[str]:
    """`images/`, `masks/` and a list of classes; `kind` is gray, palette or color. Value 0 is no class."""
    pictures(root / "images", truths)
    (root / "masks").mkdir()
    names = list(dict.fromkeys(part.name for truth in truths for part in truth.parts))
    colors = [(7 * n + 5, 255 - 3 * n, 11) for n in range(len(names))]
    for truth in truths:
        values = np.zeros(truth.segment_map.shape, np.uint8)
        for part in truth.parts:
            values[truth.mask(part)] = 1 + names.index(part.name)
        table = np.array([(0, 0, 0), *colors], np.uint8)
        image = Image.fromarray(table[values] if kind == "color" else values)
        if kind == "palette":
            image.putpalette(table.ravel().tolist())
        image.save(root / "masks" / truth.name)
    if kind == "color":
        lines = ["name,r,g,b", "void,0,0,0", *(f"{n},{r},{g},{b}" for n, (r, g, b) in zip(names, colors, strict=True))]
        (root / "class_dict.csv").write_text("\n".join(lines))
    else:
        (root / "classes.txt").write_text("\n".join(f"{n} {name}" for n, name in enumerate(names, 1)))
    return names


def voc(root: Path, truths: Sequence[Truth], val: int = 2) -> None:
    """The published layout; the first classes of VOC stand for ours."""
    from kmax.data.convert.voc import NAMES, color_map

    ours = thing_names(truths)
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for truth in truths:
        Image.fromarray(truth.image).save(root / "JPEGImages" / f"{Path(truth.name).stem}.jpg", quality=95)
        classes, objects = (np.zeros(truth.segment_map.shape, np.uint8) for _ in range(2))
        for number, part in enumerate(truth.things, 1):
            classes[truth.mask(part)] = 1 + ours.index(part.name) % (len(NAMES) - 1)
            objects[truth.mask(part)] = number
        border = (truth.segment_map == 0) & (classes == 0)
        for folder, values in (("SegmentationClass", classes), ("SegmentationObject", objects)):
            values[border] = 255
            image = Image.fromarray(values)
            palette = np.zeros((256, 3), np.uint8)
            palette[:256] = color_map(256)
            image.putpalette(palette.ravel().tolist())
            image.save(root / folder / f"{Path(truth.name).stem}.png")
    for split, chosen in (("train", truths[val:]), ("val", truths[:val])):
        text = "\n".join(Path(truth.name).stem for truth in chosen)
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text(text)


def panoptic_content(truths: Sequence[Truth], folder: Path) -> dict[str, Any]:
    """A foreign panoptic JSON: large ids, classes from 100, no areas; PNG files go to `folder`."""
    folder.mkdir(parents=True)
    kinds = {part.name: part.is_thing for truth in truths for part in truth.parts}
    names = list(kinds)
    images, annotations = [], []
    for truth in truths:
        stem = Path(truth.name).stem
        large = {part.id: 300 * number for number, part in enumerate(truth.parts, 1)}
        values = np.zeros_like(truth.segment_map)
        for part in truth.parts:
            values[truth.mask(part)] = large[part.id]
        trees.id_png(values).save(folder / f"{stem}.png")
        height, width = truth.segment_map.shape
        images.append({"id": stem, "file_name": truth.name, "height": height, "width": width})
        segments = [
            {"id": large[part.id], "category_id": 100 + names.index(part.name), "iscrowd": int(part.crowd)}
            for part in truth.parts
        ]
        annotations.append({"image_id": stem, "file_name": f"{stem}.png", "segments_info": segments})
    categories = [{"id": 100 + n, "name": name, "isthing": int(kinds[name])} for n, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_panoptic(root: Path, truths: Sequence[Truth]) -> None:
    """`annotations/panoptic_mine.json` with its folder, and `photos/`."""
    pictures(root / "photos", truths)
    content = panoptic_content(truths, root / "annotations" / "panoptic_mine")
    (root / "annotations" / "panoptic_mine.json").write_text(json.dumps(content))


def mapillary(root: Path, truths: Sequence[Truth], val: int = 2) -> None:
    """`SPLIT/images` and `SPLIT/v2.0/panoptic` of the published release; version 1.2 lies beside it."""
    for split, part in (("training", truths[val:]), ("validation", truths[:val])):
        pictures(root / split / "images", part)
        folder = root / split / "v2.0" / "panoptic"
        (folder.parent).mkdir(parents=True)
        content = panoptic_content(part, folder)
        everything = panoptic_content(truths, root / split / "v1.2" / "panoptic")
        names = {entry["name"]: entry["id"] for entry in everything["categories"]}
        for annotation, truth in zip(content["annotations"], part, strict=True):
            for segment, piece in zip(annotation["segments_info"], truth.parts, strict=True):
                segment["category_id"] = names[piece.name]
        content["categories"] = everything["categories"]
        (folder / "panoptic_2020.json").write_text(json.dumps(content))
        everything["categories"] = [{**entry, "name": f"old {entry['name']}"} for entry in everything["categories"]]
        (root / split / "v1.2" / "panoptic" / "panoptic_2018.json").write_text(json.dumps(everything))

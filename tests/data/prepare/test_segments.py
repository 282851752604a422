"""Conversions, against the official one for Cityscapes and against the definition for ADE20K."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trees
from kmax.categories import load_categories
from kmax.data.prepare import Options, prepare
from kmax.data.prepare.panoptic import ADE20KSource
from kmax.data.prepare.segments import ade20k_segments, cityscapes_segments, facts, segments_info

CITYSCAPES, ADE20K = load_categories("cityscapes"), load_categories("ade20k")


def test_cityscapes_equals_the_official_conversion(tmp_path: Path) -> None:
    official = pytest.importorskip("cityscapesscripts.preparation.createPanopticImgs")
    root = trees.cityscapes(tmp_path / "a", train=6)
    (tmp_path / "b").mkdir()
    official.convert2panoptic(str(root / "gtFine"), str(tmp_path / "b"), setNames=["train", "val"])
    prepare("cityscapes", Options(root))
    crowds = 0
    for split in ("train", "val"):
        ours, theirs = (folder / f"cityscapes_panoptic_{split}" for folder in (root / "gtFine", tmp_path / "b"))
        mine, reference = (json.loads(folder.with_suffix(".json").read_text()) for folder in (ours, theirs))
        for category in reference["categories"]:
            del category["supercategory"]
        assert mine == reference
        assert sorted(f.name for f in ours.iterdir()) == sorted(f.name for f in theirs.iterdir())
        for file in theirs.iterdir():
            assert np.array_equal(np.asarray(Image.open(ours / file.name)), np.asarray(Image.open(file)))
        crowds += sum(s["iscrowd"] for a in mine["annotations"] for s in a["segments_info"])
    assert crowds


def test_cityscapes_refuses_what_has_no_label() -> None:
    for value in (34, 34_001, 65_535):
        with pytest.raises(ValueError, match=f"value {value}"):
            cityscapes_segments(np.full((2, 2), value), CITYSCAPES)


def test_ade20k_things_lie_over_stuff() -> None:
    bed, wall, sky = facts("ade20k")["class_of_instance"][0], 1, 3
    semantic = np.array([[wall, wall, bed, bed, sky, 0]], np.uint8)
    instances = np.zeros((1, 6, 3), np.uint8)
    instances[0, [1, 2, 5]] = [(1, 9, 0), (1, 9, 0), (1, 4, 0)]
    segment_map, segments = ade20k_segments(semantic, instances, ADE20K)
    nine, four = 256 * bed + 9, 256 * bed + 4
    assert segment_map.tolist() == [[256 * wall, nine, nine, 0, 256 * sky, four]]
    assert segments == {256 * wall: (wall, False), 256 * sky: (sky, False), nine: (bed, False), four: (bed, False)}


@pytest.mark.parametrize(
    ("semantic", "instance", "message"),
    [(151, (0, 0, 0), "class 151"), (0, (101, 1, 0), "category 101"), (0, (0, 3, 0), "without a category")],
)
def test_ade20k_refuses_what_is_not_in_the_release(semantic: int, instance: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ade20k_segments(np.full((2, 2), semantic, np.uint8), np.full((2, 2, 3), instance, np.uint8), ADE20K)


def test_the_mapping_covers_the_things() -> None:
    mapped = facts("ade20k")["class_of_instance"]
    assert len(mapped) == 100
    assert set(mapped) == {c.id for c in ADE20K.classes if c.is_thing}


def test_the_mapping_and_the_names_are_the_official_ones(sample_data: Path) -> None:
    folder = sample_data / "ade20k_sample"
    rows = [line.split() for line in (folder / "categoryMapping.txt").read_text().splitlines()[1:]]
    official = {int(row[0]): int(row[1]) for row in rows if row}
    assert [official[n] for n in range(1, 101)] == facts("ade20k")["class_of_instance"]
    names = [line.split("\t")[4].split(", ") for line in (folder / "objectInfo150.txt").read_text().splitlines()[1:]]
    assert all(c.name in [n.strip() for n in given] for c, given in zip(ADE20K.classes, names, strict=True))


def test_real_semantic_maps_of_ade20k_become_stuff(sample_data: Path, tmp_path: Path) -> None:
    folder = sample_data / "ade20k_sample" / "sampleData"
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
        os.symlink(folder / name, tmp_path / name / "validation")
    (tmp_path / "annotations_instance/validation").mkdir(parents=True)
    for file in (folder / "annotations").iterdir():
        empty = Image.new("RGB", Image.open(file).size)
        empty.save(tmp_path / "annotations_instance/validation" / file.name)
    source = ADE20KSource.find(tmp_path, "val", ADE20K)
    for key in source.keys():  # noqa: SIM118
        segment_map, segments = source.read(key)
        semantic = np.asarray(Image.open(folder / "annotations" / f"{key}.png"))
        things = [0, *(c.id for c in ADE20K.classes if c.is_thing)]
        assert np.array_equal(segment_map // 256, np.where(np.isin(semantic, things), 0, semantic))
        assert segments


def test_areas_and_boxes() -> None:
    segment_map = np.zeros((4, 5), np.int32)
    segment_map[1:3, 2:] = 70_000
    segment_map[3, 0] = 2
    entries = segments_info(segment_map, {70_000: (5, True), 2: (6, False)})
    assert entries == [
        {"id": 2, "category_id": 6, "area": 1, "bbox": [0, 3, 1, 1], "iscrowd": 0},
        {"id": 70_000, "category_id": 5, "area": 6, "bbox": [2, 1, 3, 2], "iscrowd": 1},
    ]

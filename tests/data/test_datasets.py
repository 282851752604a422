"""COCO's panoptic format: real files where they are present, and every way in which files can be wrong."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kmax.config.sentences import sentence_of
from kmax.data import CocoPanoptic
from kmax.images import UnreadableImageError

SAMPLES = Path(os.environ.get("KMAX_SAMPLE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
needs_samples = pytest.mark.skipif(
    not (SAMPLES / "coco128").is_dir(), reason="no COCO sample files: set KMAX_SAMPLE_DATA to a folder with coco128/"
)


def write(root: Path, segment_ids: tuple[int, ...] = (7, 70_000), mode: str = "RGB") -> dict:
    """One 20×30 image whose left half is a person and whose right half is a crowd of persons."""
    (root / "images").mkdir()
    (root / "png").mkdir()
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).convert(mode).save(root / "images/a.jpg")
    ids = np.full((20, 30), segment_ids[0])
    ids[:, 15:] = segment_ids[1]
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    Image.fromarray(rgb).save(root / "png/a.png")
    segments = [{"id": i, "category_id": 1, "iscrowd": n, "area": 300} for n, i in enumerate(segment_ids)]
    content = {
        "images": [{"id": 3, "file_name": "a.jpg", "height": 20, "width": 30}],
        "annotations": [{"image_id": 3, "file_name": "a.png", "segments_info": segments}],
    }
    (root / "a.json").write_text(json.dumps(content))
    return content


def read(root: Path) -> CocoPanoptic:
    return CocoPanoptic(root / "images", root / "png", root / "a.json")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_sample_is_read(tmp_path: Path, mode: str) -> None:
    write(tmp_path, mode=mode)
    dataset = read(tmp_path)
    sample = dataset[0]
    assert sample.image.shape == (20, 30, 3)
    assert sample.image.dtype == np.uint8
    assert [(s.id, s.label, s.crowd) for s in sample.segments] == [(7, 0, False), (70_000, 0, True)]
    assert set(np.unique(sample.segment_map)) == {7, 70_000}
    assert (sample.image_id, sample.file_name, dataset.image_ids) == (3, "a.jpg", [3])
    assert np.array_equal(pickle.loads(pickle.dumps(dataset))[0].segment_map, sample.segment_map)


@pytest.mark.parametrize("missing", ["images", "png", "a.json"])
def test_a_missing_folder_is_named(tmp_path: Path, missing: str) -> None:
    write(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=rf"{missing} is missing: set the dataset's folder") as caught:
        read(tmp_path)
    assert "set the dataset's folder (dataset.root)" in sentence_of(caught.value)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "images/a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.jpg"):
        read(tmp_path)[0]


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "images/a.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnreadableImageError, match=r"a\.jpg is damaged"):
        read(tmp_path)[0]


def test_a_png_of_another_size_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    Image.new("RGB", (5, 5)).save(tmp_path / "png/a.png")
    with pytest.raises(ValueError, match=r"a\.png is 5×5 but its image a\.jpg is 30×20"):
        read(tmp_path)[0]


def test_ids_that_disagree_are_named(tmp_path: Path) -> None:
    content = write(tmp_path)
    content["annotations"][0]["segments_info"][0]["id"] = 8
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"Segment 7 of a\.png"):
        read(tmp_path)[0]


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "a grayscale PNG, not one of RGB"), ("P", "a palette PNG"), ("I;16", "a grayscale PNG")]
)
def test_a_png_that_holds_no_colors_is_named(tmp_path: Path, mode: str, kind: str) -> None:
    write(tmp_path, (1, 2))
    ids = np.full((20, 30), 1, np.uint16)
    ids[:, 15:] = 2
    picture = Image.fromarray(ids if mode == "I;16" else ids.astype(np.uint8))
    if mode == "P":
        picture.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    picture.save(tmp_path / "png/a.png")
    with pytest.raises(ValueError, match=rf"a\.png is {kind}.*write the ids as RGB, or convert .*_own") as caught:
        read(tmp_path)[0]
    assert "release" not in str(caught.value)


def test_a_palette_may_spell_ids(tmp_path: Path) -> None:
    write(tmp_path)
    expected = read(tmp_path)[0].segment_map
    Image.open(tmp_path / "png/a.png").quantize(2).save(tmp_path / "png/a.png")
    assert np.array_equal(read(tmp_path)[0].segment_map, expected)


def test_half_a_json_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "a.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        read(tmp_path)


def test_an_unknown_category_is_named(tmp_path: Path) -> None:
    content = write(tmp_path)
    content["annotations"][0]["segments_info"][0]["category_id"] = 999
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"category 999 in a\.png"):
        read(tmp_path)


def test_an_annotation_without_an_image_is_named(tmp_path: Path) -> None:
    content = write(tmp_path)
    content["images"] = []
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="belongs to no image"):
        read(tmp_path)


@needs_samples
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_files_are_read(split: str) -> None:
    root = SAMPLES / "coco128"
    folder = root / "annotations" / f"panoptic_{split}2017"
    dataset = CocoPanoptic(root / f"{split}2017", folder, folder.with_suffix(".json"))
    assert len(dataset) == 100
    samples = [dataset[i] for i in range(0, 100, 10)]
    assert all(sample.image.shape[:2] == sample.segment_map.shape for sample in samples)
    subset = CocoPanoptic(root / f"{split}2017", folder, folder.with_suffix(".json"), subset=dataset.image_ids[3:5])
    assert subset.image_ids == dataset.image_ids[3:5]
    content = json.loads(folder.with_suffix(".json").read_text())
    areas = {s["id"]: s["area"] for s in content["annotations"][0]["segments_info"]}
    first = dataset[0]
    assert {s.id: int((first.segment_map == s.id).sum()) for s in first.segments} == areas

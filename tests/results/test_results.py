"""Predictions on disk: read back by others' readers, kept through whatever stops the program."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from kmax.categories import Categories, Category, load_categories
from kmax.data import CocoPanoptic
from kmax.results import ResultFolder
from kmax.results.coco import instance_results
from kmax.results.records import Records
from kmax.structures import Instances, PanopticMap, Segment

CATEGORIES = load_categories("coco")
PERSON, STUFF = CATEGORIES.names.index("person"), CATEGORIES.is_thing.index(False)
EVERYTHING = ("overlay", "panoptic", "semantic", "instances", "segments")


def prediction() -> tuple[np.ndarray, PanopticMap, np.ndarray, Instances]:
    """An image (20, 30) with one person of 6×5 pixels on stuff, void at the bottom; a second, empty instance."""
    segment_map = torch.full((20, 30), 2, dtype=torch.int32)
    segment_map[4:10, 7:12] = 1
    segment_map[15:] = 0
    panoptic = PanopticMap(segment_map, (Segment(1, PERSON, score=0.91), Segment(2, STUFF, score=0.75)))
    semantic = np.where(segment_map.numpy() == 1, PERSON, STUFF)
    masks = torch.stack([segment_map == 1, torch.zeros(20, 30, dtype=torch.bool)])
    instances = Instances.from_masks(masks, torch.tensor([PERSON, 3]), torch.tensor([0.9, 0.0]))
    return np.full((20, 30, 3), 100, np.uint8), panoptic, semantic, instances


@pytest.fixture
def written(tmp_path: Path) -> Path:
    folder = ResultFolder(tmp_path / "out", CATEGORIES, EVERYTHING, {"ckpt": "a"})
    for key in ("000000000042", "deep/b"):
        folder.record(folder.write(key, f"{key}.jpg", *prediction()))
    folder.assemble()
    return folder.folder


def test_the_panoptic_files_are_a_dataset(written: Path) -> None:
    images = written / "images"
    for name in ("000000000042.jpg", "deep/b.jpg"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(prediction()[0]).save(images / name)
    dataset = CocoPanoptic(images, written / "panoptic", written / "panoptic.json", CATEGORIES)
    assert len(dataset) == 2
    for sample in (dataset[0], dataset[1]):
        np.testing.assert_array_equal(sample.segment_map, prediction()[1].segment_map.numpy())
        assert [(s.id, s.label) for s in sample.segments] == [(1, PERSON), (2, STUFF)]
    content = json.loads((written / "panoptic.json").read_text())
    assert [image["id"] for image in content["images"]] == [42, "deep/b"]
    person = content["annotations"][0]["segments_info"][0]
    assert (person["area"], person["bbox"], person["score"]) == (30, [7, 4, 5, 6], 0.91)


def test_the_instances_are_coco_results(written: Path) -> None:
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i, "height": 20, "width": 30} for i in (42, "deep/b")],
        "categories": [{"id": i} for i in CATEGORIES.ids],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes(str(written / "instances.json"))
    assert len(results.anns) == 2  # the empty instance is left out
    found = results.loadAnns(results.getAnnIds(imgIds=[42]))[0]
    np.testing.assert_array_equal(results.annToMask(found), prediction()[1].segment_map.numpy() == 1)
    assert found["category_id"] == CATEGORIES.ids[PERSON]
    assert list(found["bbox"]) == [7, 4, 5, 6]
    assert found["area"] == 30


def test_pycocotools_finds_the_area_of_the_mask(tmp_path: Path) -> None:
    """Not that of its box: 14 pixels in a box of 24."""
    mask = np.ones((4, 6), bool)
    mask[:2, :5] = False
    instances = Instances.from_masks(torch.from_numpy(mask)[None], torch.tensor([PERSON]), torch.tensor([0.5]))
    (entry,) = instance_results(instances, 1, CATEGORIES)
    assert entry["area"] == 14
    (tmp_path / "instances.json").write_text(json.dumps([entry]))
    truth = COCO()
    truth.dataset = {"images": [{"id": 1, "height": 4, "width": 6}], "categories": [{"id": i} for i in CATEGORIES.ids]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        (loaded,) = truth.loadRes(str(tmp_path / "instances.json")).anns.values()
    assert loaded["area"] == 14
    assert list(loaded["bbox"]) == [0, 0, 6, 4]


def test_semantic_maps_hold_dataset_ids_and_wear_colors(written: Path) -> None:
    image = Image.open(written / "semantic/deep/b.png")
    np.testing.assert_array_equal(np.asarray(image), np.array(CATEGORIES.ids)[prediction()[2]])
    assert tuple(np.asarray(image.convert("RGB"))[5, 8]) == CATEGORIES.classes[PERSON].color


def test_large_ids_need_sixteen_bits(tmp_path: Path) -> None:
    classes = tuple(Category(1000 + i, str(i), True, (i, i, i)) for i in range(3))
    folder = ResultFolder(tmp_path, Categories("large", classes), ("semantic",), {})
    empty = PanopticMap(torch.zeros(2, 3, dtype=torch.int32), ())
    folder.record(folder.write("x", "x.jpg", np.zeros((2, 3, 3), np.uint8), empty, np.array([[0, 1, 2]] * 2)))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "semantic/x.png")), [[1000, 1001, 1002]] * 2)


@pytest.mark.parametrize(("first", "values"), [(70_000, [0, 1, 2]), (65_533, [65_533, 65_534, 65_535])])
def test_ids_that_no_png_holds_get_a_table(tmp_path: Path, first: int, values: list[int]) -> None:
    classes = tuple(Category(first + i, f"class {i}", True, (i, i, i)) for i in range(3))
    folder = ResultFolder(tmp_path, Categories("large", classes), ("semantic",), {})
    empty = PanopticMap(torch.zeros(2, 3, dtype=torch.int32), ())
    folder.record(folder.write("x", "x.jpg", np.zeros((2, 3, 3), np.uint8), empty, np.array([[0, 1, 2]] * 2)))
    assert tmp_path / "semantic.json" in folder.assemble()
    written = np.asarray(Image.open(tmp_path / "semantic/x.png"))
    np.testing.assert_array_equal(written, [values] * 2)
    table = {row["value"]: row["id"] for row in json.loads((tmp_path / "semantic.json").read_text())}
    assert [table[value] for value in written[0].tolist()] == [c.id for c in classes]


def test_the_table_has_a_row_per_segment(written: Path) -> None:
    with (written / "segments.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["class"]) for row in rows[:2]] == [
        ("000000000042", "person"),
        ("000000000042", CATEGORIES.names[STUFF]),
    ]
    assert [rows[0][k] for k in ("isthing", "score", "area", "x", "y", "width", "height")] == [
        *("1", "0.91", "30", "7", "4", "5", "6")
    ]
    assert len(rows) == 4


def test_names_in_any_script_are_written_whatever_the_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text files have an encoding of their own: the locale of a container is ASCII."""
    original = Path.open

    def strict(path: Path, mode: Any = "r", *rest: Any, encoding: str | None = None, **options: Any) -> Any:
        return original(path, mode, *rest, encoding=encoding or (None if "b" in mode else "ascii"), **options)

    monkeypatch.setattr(Path, "open", strict)
    names = ("Straße", "道路 [/x]")
    classes = tuple(Category(i + 1, name, True, (i, i, i)) for i, name in enumerate(names))
    folder = ResultFolder(tmp_path, Categories("own", classes), EVERYTHING, {"input": "Bäume"})
    segment_map = torch.ones(20, 30, dtype=torch.int32)
    panoptic = PanopticMap(segment_map, (Segment(1, 1, score=0.5),))
    instances = Instances.from_masks(segment_map[None] == 1, torch.tensor([1]), torch.tensor([0.5]))
    image = np.zeros((20, 30, 3), np.uint8)
    folder.record(folder.write("ü", "ü.jpg", image, panoptic, np.zeros((20, 30), int), instances))
    folder.assemble()
    monkeypatch.undo()
    assert f",{names[1]}," in (tmp_path / "segments.csv").read_text(encoding="utf-8")
    assert [c["name"] for c in json.loads((tmp_path / "panoptic.json").read_text())["categories"]] == list(names)


def test_a_folder_goes_on_with_the_same_settings_only(written: Path) -> None:
    again = ResultFolder(written, CATEGORIES, EVERYTHING, {"ckpt": "a"})
    assert again.records.done == {"000000000042", "deep/b"}
    with pytest.raises(ValueError, match=r"of ckpt=a, not b: .*overwrite=true"):
        ResultFolder(written, CATEGORIES, EVERYTHING, {"ckpt": "b"})
    (written / "notes.txt").write_text("mine")
    fresh = ResultFolder(written, CATEGORIES, ("segments",), {"ckpt": "b"}, overwrite=True)
    assert fresh.records.done == set()
    assert not (written / "panoptic.json").exists()
    assert (written / "notes.txt").exists()  # it deletes nothing that it did not make


def test_a_strange_folder_and_an_unknown_output_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="something else than predictions"):
        ResultFolder(tmp_path, CATEGORIES, ("segments",), {}, overwrite=True)
    with pytest.raises(ValueError, match=r"outputs=\['masks'\] is unknown"):
        ResultFolder(tmp_path / "new", CATEGORIES, ("masks",), {})
    assert not (tmp_path / "new").exists()


def test_records_survive_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    records = Records(path)
    records.append({"key": "b", "n": 1})
    records.append({"key": "a", "error": "broken"})
    records.append({"key": "c", "n": 3})
    records.close()
    path.write_bytes(path.read_bytes()[:-5])
    again = Records(path)
    assert again.done == {"b"}
    again.append({"key": "a", "n": 2})
    again.append({"key": "b", "n": 4})
    assert [(r["key"], r["n"]) for r in again] == [("a", 2), ("b", 4)]
    again.close()
    assert [(r["key"], r["n"]) for r in Records(path)] == [("a", 2), ("b", 4)]
    path.write_text("no json\n")
    with pytest.raises(ValueError, match="damaged at byte 0"):
        Records(path)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ResultFolder(tmp_path, CATEGORIES, ("panoptic",), {})

    def full_disk(self: Image.Image, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    image, panoptic, *_ = prediction()
    with pytest.raises(OSError, match="No space left"):
        folder.write("x", "x.jpg", image, panoptic)
    assert list((tmp_path / "panoptic").iterdir()) == []

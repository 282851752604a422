"""Every format, written in its tool's layout from a known truth, comes back as that truth, pixel by pixel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import foreign_formats as foreign
from foreign_formats import Truth, outlines
from kmax.data.convert.check import check
from kmax.data.convert.options import Options
from kmax.data.convert.own import convert
from kmax.data.convert.voc import NAMES

Segments = list[tuple[str, bool]]  # name and crowd


@pytest.fixture(scope="module", params=["shapes", pytest.param("photos", id="photos", marks=pytest.mark.long)])
def truths(request: pytest.FixtureRequest) -> list[Truth]:
    """Images with their truth: small ones that are always there, and photos."""
    if request.param == "shapes":
        return foreign.synthetic()
    return foreign.real(request.getfixturevalue("sample_data"))


def result(root: Path) -> dict[str, tuple[np.ndarray, dict[int, tuple[str, bool, bool]]]]:
    """Map (H, W), and name, thing, crowd by id, of every image of a prepared folder, by stem."""
    found = {}
    for split in ("train", "val"):
        file = root / "annotations" / f"panoptic_{split}.json"
        content = json.loads(file.read_text())
        classes = {c["id"]: (c["name"], bool(c["isthing"])) for c in content["categories"]}
        for annotation in content["annotations"]:
            rgb = np.asarray(Image.open(file.with_suffix("") / annotation["file_name"])).astype(np.int32)
            ids = rgb @ np.array([1, 256, 65536])
            segments = {s["id"]: (*classes[s["category_id"]], bool(s["iscrowd"])) for s in annotation["segments_info"]}
            assert set(np.unique(ids)) - {0} == set(segments)
            assert {s["id"]: s["area"] for s in annotation["segments_info"]} == {
                i: int((ids == i).sum()) for i in segments
            }
            found[annotation["image_id"]] = (ids, segments)
    return found


def prepared(source: Path, tmp_path: Path, **options: object) -> dict[str, tuple]:
    """Convert, check, and read the result."""
    given = Options(root=tmp_path / "out", source=source, **options)  # type: ignore[arg-type]
    convert(given)
    assert [str(f) for f in check(given) if not f.is_note] == []
    return result(given.root)


def canonical(values: np.ndarray, names: dict[int, tuple]) -> tuple[np.ndarray, list]:
    """Segments numbered by their first pixel, and what each is."""
    ids, first, position = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(ids), int)
    number[order] = np.arange(len(ids))
    return number[position].reshape(values.shape), [names.get(int(ids[n]), ("void",)) for n in order]


def assert_equal(found: dict[str, tuple], truths: Sequence[Truth], expected: Callable[[Truth], tuple]) -> None:
    """Every image is there, and its map is the expected one."""
    assert set(found) == {Path(truth.name).stem for truth in truths}
    for truth in truths:
        values, segments = found[Path(truth.name).stem]
        mine, names = canonical(values, segments)
        theirs, true_names = canonical(*expected(truth))
        np.testing.assert_array_equal(mine, theirs, truth.name)
        assert names == true_names


def things_on_background(truth: Truth, crowd: bool = False) -> tuple[np.ndarray, dict[int, tuple]]:
    """The truth of who labels things alone."""
    parts = [p for p in truth.parts if p.is_thing and (crowd or not p.crowd)]
    values = np.where(np.isin(truth.segment_map, [p.id for p in parts]), truth.segment_map, -1)
    return values, {-1: ("background", False, False), **{p.id: (p.name, True, p.crowd) for p in parts}}


def everything(truth: Truth) -> tuple[np.ndarray, dict[int, tuple]]:
    """The whole truth."""
    return truth.segment_map, {p.id: (p.name, p.is_thing, p.crowd) for p in truth.parts}


def test_labelme_masks(truths: list[Truth], tmp_path: Path) -> None:
    foreign.labelme(tmp_path / "in", truths, "mask")
    assert_equal(prepared(tmp_path / "in", tmp_path), truths, things_on_background)


@pytest.mark.parametrize("kind", ["counts", "compressed"])
def test_coco_run_lengths(kind: str, truths: list[Truth], tmp_path: Path) -> None:
    foreign.coco_instances(tmp_path / "in", truths, kind)
    names = foreign.thing_names(truths)

    def expected(truth: Truth) -> tuple[np.ndarray, dict[int, tuple]]:
        values, segments = things_on_background(truth, crowd=True)
        unnamed = [i for i, (name, _, _) in segments.items() if name not in names and i > 0]
        return np.where(np.isin(values, unnamed), -1, values), segments

    assert_equal(prepared(tmp_path / "in", tmp_path), truths, expected)


def test_cvat_masks(truths: list[Truth], tmp_path: Path) -> None:
    foreign.cvat(tmp_path / "in", truths, "mask")
    assert_equal(prepared(tmp_path / "in", tmp_path), truths, things_on_background)


@pytest.mark.parametrize("kind", ["gray", "palette", "color"])
def test_semantic_maps_are_stuff(kind: str, truths: list[Truth], tmp_path: Path) -> None:
    foreign.semantic(tmp_path / "in", truths, kind)

    def expected(truth: Truth) -> tuple[np.ndarray, dict[int, tuple]]:
        values = np.zeros_like(truth.segment_map)
        names = list(dict.fromkeys(p.name for p in truth.parts))
        for part in truth.parts:
            values[truth.mask(part)] = 1 + names.index(part.name)
        return values, {n: (name, False, False) for n, name in enumerate(names, 1)}

    assert_equal(prepared(tmp_path / "in", tmp_path), truths, expected)


def test_things_of_semantic_maps_are_components(truths: list[Truth], tmp_path: Path) -> None:
    names = foreign.semantic(tmp_path / "in", truths)
    thing = next(p.name for t in truths for p in t.things)
    found = prepared(tmp_path / "in", tmp_path, things=(thing,))
    assert thing in names
    total = 0
    for truth in truths:
        mask = np.isin(truth.segment_map, [p.id for p in truth.parts if p.name == thing])
        count, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        values, segments = found[Path(truth.name).stem]
        own = {i for i, (name, is_thing, _) in segments.items() if name == thing and is_thing}
        assert len(own) == count - 1
        for component in range(1, count):
            assert len(np.unique(values[components == component])) == 1
        total += count - 1
    assert total


def test_voc(truths: list[Truth], tmp_path: Path) -> None:
    foreign.voc(tmp_path / "in", truths)
    ours = foreign.thing_names(truths)

    def expected(truth: Truth) -> tuple[np.ndarray, dict[int, tuple]]:
        values, segments = things_on_background(truth)
        values = np.where((truth.segment_map == 0) & (values == -1), 0, values)
        renamed = {i: (NAMES[1 + ours.index(s[0]) % 20], True, False) for i, s in segments.items() if i > 0}
        return values, {-1: ("background", False, False), **renamed}

    found = prepared(tmp_path / "in", tmp_path)
    assert_equal(found, truths, expected)
    split = (tmp_path / "in/ImageSets/Segmentation/val.txt").read_text().split()
    assert sorted(p.stem for p in (tmp_path / "out/val").iterdir()) == sorted(split)


def test_foreign_coco_panoptic_is_numbered_anew(truths: list[Truth], tmp_path: Path) -> None:
    foreign.coco_panoptic(tmp_path / "in", truths)
    found = prepared(tmp_path / "in", tmp_path)
    assert_equal(found, truths, everything)
    for _, segments in found.values():
        assert sorted(segments) == list(range(1, len(segments) + 1))


def test_mapillary_vistas_of_version_2(truths: list[Truth], tmp_path: Path) -> None:
    foreign.mapillary(tmp_path / "in", truths)
    assert_equal(prepared(tmp_path / "in", tmp_path), truths, everything)
    assert len(list((tmp_path / "out/val").iterdir())) == 2


def painted(truth: Truth, largest_first: bool) -> tuple[np.ndarray, dict[int, tuple]]:
    """The same polygons by another rasterizer."""
    things = [(p, outlines(truth.mask(p))) for p in truth.things]
    things = [(p, lines) for p, lines in things if lines]
    if largest_first:
        things.sort(key=lambda entry: -sum(cv2.contourArea(line) for line in entry[1]))
    values = np.full(truth.segment_map.shape, -1, np.int32)
    for part, lines in things:
        for line in lines:
            cv2.fillPoly(values, [line.astype(np.int32)], part.id)
    return values, {-1: ("background", False, False), **{p.id: (p.name, True, False) for p, _ in things}}


def edges(values: np.ndarray) -> np.ndarray:
    """Pixels (H, W) at most one from another segment or from the end of the image."""
    kernel = np.ones((3, 3), np.uint8)
    image = np.pad(values.astype(np.float32), 1, constant_values=-2)
    return (cv2.dilate(image, kernel) != cv2.erode(image, kernel))[1:-1, 1:-1]


def assert_near(found: dict[str, tuple], truths: Iterable[Truth], largest_first: bool) -> None:
    """The same objects, whose outlines differ by a pixel at most."""
    compared = 0
    for truth in truths:
        values, segments = found[Path(truth.name).stem]
        direct, names = painted(truth, largest_first)
        mine = np.zeros_like(direct)
        for id_, (name, is_thing, crowd) in segments.items():
            inside = direct[values == id_]
            partner = int(np.bincount(inside + 1).argmax()) - 1
            assert names[partner] == (name, is_thing, crowd)
            mine[values == id_] = partner
        assert set(np.unique(mine)) >= {i for i in np.unique(direct) if (direct == i).sum() > 60}
        assert not ((mine != direct) & ~edges(direct)).any(), truth.name
        compared += len(segments)
    assert compared


def test_labelme_polygons(truths: list[Truth], tmp_path: Path) -> None:
    foreign.labelme(tmp_path / "in", truths)
    assert_near(prepared(tmp_path / "in", tmp_path), truths, largest_first=False)


def test_cvat_polygons(truths: list[Truth], tmp_path: Path) -> None:
    foreign.cvat(tmp_path / "in", truths)
    assert_near(prepared(tmp_path / "in", tmp_path), truths, largest_first=False)


def test_coco_polygons(truths: list[Truth], tmp_path: Path) -> None:
    foreign.coco_instances(tmp_path / "in", truths)
    assert_near(prepared(tmp_path / "in", tmp_path), truths, largest_first=True)


def test_yolo(truths: list[Truth], tmp_path: Path) -> None:
    whole = [t for t in truths if all(len(outlines(t.mask(p))) == 1 for p in t.things)] or truths[:0]
    if len(whole) < 3:  # YOLO has no parts: images whose objects are whole
        whole = [_whole(t) for t in truths]
    foreign.yolo(tmp_path / "in", whole)
    found = prepared(tmp_path / "in", tmp_path)
    assert len(list((tmp_path / "out/val").iterdir())) == 2
    assert_near(found, whole, largest_first=True)


def _whole(truth: Truth) -> Truth:
    """A truth without the objects that consist of several pieces."""
    parts = tuple(p for p in truth.parts if not p.is_thing or len(outlines(truth.mask(p))) == 1)
    return Truth(truth.name, truth.image, truth.segment_map, parts)


def test_what_datumaro_reads(truths: list[Truth], tmp_path: Path) -> None:
    pytest.importorskip("datumaro")
    foreign.coco_instances(tmp_path / "in", truths, "compressed", first=1)  # Datumaro takes class 0 for none
    found = prepared(tmp_path / "in", tmp_path, format="datumaro:coco_instances")
    mine = {stem: canonical(*entry) for stem, entry in found.items()}
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.png")}
    prepared(tmp_path / "in", tmp_path, format="datumaro:coco_instances")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.png")} == times  # nothing is made again
    direct = prepared(tmp_path / "in", tmp_path / "ours")
    for stem, entry in direct.items():
        values, names = canonical(*entry)
        np.testing.assert_array_equal(mine[stem][0], values)
        assert [n[:1] for n in mine[stem][1]] == [n[:1] for n in names]

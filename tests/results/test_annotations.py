"""Predictions as annotations to correct: what comes back through the converter is what went out."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO
from scipy import ndimage

from kmax.categories import Categories, Category
from kmax.config.compose import compose_config
from kmax.data import ShapesDataset
from kmax.results import ResultFolder
from kmax.results.annotations import AnnotationStyle
from kmax.results.outlines import polygons
from kmax.structures import PanopticMap, Segment
from scripts.predict import predict
from segmentation_cases import CATEGORIES, NUMBER, case
from small_sources import prepare

STUFF = tuple(c.name for c in CATEGORIES.classes if not c.is_thing)
OUTPUTS = ("annotations", "label_studio")


def rasterized(parts: list[list[int]], size: tuple[int, ...]) -> np.ndarray:
    codes = coco.frPyObjects([[float(x) for x in part] for part in parts], *map(int, size))
    return np.asarray(coco.decode(coco.merge(codes)), bool)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["noise", "blobs", "rings", "lines"])
def test_polygons_rasterize_to_the_very_mask(kind: str) -> None:
    """Holes, holes in holes, parts that touch at a corner, single pixels, whole images."""
    rng = np.random.default_rng(7)
    for number in range(60):
        height, width = rng.integers(1, 60, 2)
        noise = rng.random((height, width))
        mask = {
            "noise": noise < rng.random(),
            "blobs": ndimage.gaussian_filter(noise, 2) > 0.5,
            "rings": np.sin(np.hypot(*np.mgrid[:height, :width]) / 3 + number) > 0,
            "lines": (np.add(*np.mgrid[:height, :width]) % (2 + number % 5)) == 0,
        }[kind]
        found = polygons(mask)
        assert len(found) == ndimage.label(mask, np.ones((3, 3)))[1]
        if found:
            np.testing.assert_array_equal(rasterized(found, mask.shape), mask)
    assert polygons(np.ones((5, 9), bool)) == [[0, 0, 0, 5, 9, 5, 9, 0]]


def test_a_tolerance_makes_polygons_small_and_keeps_pixels_near() -> None:
    rows, columns = np.mgrid[:200, :300]
    distance = np.hypot(rows - 100, columns - 150)
    mask = (distance < 80) & (distance > 30)  # with a hole
    exact, simple = polygons(mask), polygons(mask, 1.0)
    assert len(simple[0]) < len(exact[0]) / 5
    differing = rasterized(simple, mask.shape) != mask
    border = np.abs(distance - 80).clip(max=np.abs(distance - 30))
    assert differing.any()
    assert border[differing].max() < 2.5, "the tolerance, and the half diagonal of a pixel on each side"
    for side in (1, 2, 3, 5):  # what is small is not flattened
        dot = np.zeros((9, 9), bool)
        dot[2 : 2 + side, 3 : 3 + side] = True
        np.testing.assert_array_equal(rasterized(polygons(dot, 4.0), dot.shape), dot)


def write(folder: Path, predictions: dict[str, PanopticMap], categories: Categories, **style: Any) -> Path:
    """A folder of results, and the images that they belong to in `folder`/images."""
    made = ResultFolder(folder / "out", categories, OUTPUTS, {}, style=AnnotationStyle(**style))
    for number, (name, prediction) in enumerate(predictions.items()):
        image = np.full((*prediction.segment_map.shape, 3), number, np.uint8)
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "images" / name)
        made.record(made.write(name.removesuffix(".png"), name, image, prediction))
    made.assemble()
    made.records.close()
    return made.folder


def read_back(root: Path) -> dict[str, tuple[np.ndarray, dict[int, str]]]:
    """By the original name: the map that the converter wrote, and the class of each segment."""
    found = {}
    for split in ("train", "val"):
        file = root / "annotations" / f"panoptic_{split}.json"
        content = json.loads(file.read_text())
        names = {c["id"]: c["name"] for c in content["categories"]}
        origin = {image["id"]: image["origin"]["file"] for image in content["images"]}
        for entry in content["annotations"]:
            ids = np.asarray(Image.open(file.with_suffix("") / entry["file_name"])).astype(int) @ [1, 256, 65536]
            found[origin[entry["image_id"]]] = ids, {s["id"]: names[s["category_id"]] for s in entry["segments_info"]}
    return found


def numbered(prediction: PanopticMap) -> PanopticMap:
    """The same segments with ids from 1, as post-processing gives them."""
    ids = [segment.id for segment in prediction.segments]
    table = torch.zeros(max(ids, default=0) + 1, dtype=torch.int32)
    table[torch.tensor(ids, dtype=torch.long)] = torch.arange(1, len(ids) + 1, dtype=torch.int32)
    segment_map = table[prediction.segment_map.clamp(max=len(table) - 1).long()]
    segments = [Segment(n, s.label, score=round(0.9 - n / 100, 3)) for n, s in enumerate(prediction.segments, 1)]
    return PanopticMap(segment_map, tuple(segments))


PREDICTIONS = {f"deep/{seed}.png": numbered(case(seed).panoptic) for seed in range(NUMBER)}


def differing(prediction: PanopticMap, found: np.ndarray, names: dict[int, str]) -> np.ndarray:
    """Pixels (H, W) whose segment is not the one that the prediction's segment mostly became."""
    segment_map = prediction.segment_map.numpy()
    wrong = (segment_map == 0) & (found != 0)
    for segment in prediction.segments:
        inside = segment_map == segment.id
        most = int(np.bincount(found[inside]).argmax())
        assert names.get(most) == CATEGORIES.names[segment.label]
        wrong |= inside & (found != most)
        if CATEGORIES.is_thing[segment.label]:
            wrong |= (found == most) & ~inside
    return wrong


@pytest.mark.long
@pytest.mark.parametrize("rle_holes", [False, True])
def test_the_circle_closes_to_the_pixel(rle_holes: bool, tmp_path: Path) -> None:
    out = write(tmp_path, PREDICTIONS, CATEGORIES, tolerance=0, rle_holes=rle_holes)
    source = out / "annotations.json"
    written = json.loads(source.read_text())["annotations"]
    assert any(isinstance(entry["segmentation"], dict) for entry in written) == rle_holes
    root = tmp_path / "mydata"
    prepare(source, root=root, images=tmp_path / "images", stuff=STUFF, unlabeled="void", val=0.3)
    back = read_back(root)
    assert len(back) == NUMBER
    for name, prediction in PREDICTIONS.items():
        found, names = back[name]
        assert not differing(prediction, found, names).any()
        assert len(names) == len(prediction.segments)


def test_with_a_tolerance_only_borders_move(tmp_path: Path) -> None:
    source = write(tmp_path, PREDICTIONS, CATEGORIES) / "annotations.json"
    prepare(source, root=tmp_path / "mydata", images=tmp_path / "images", stuff=STUFF, unlabeled="void", val=0.3)
    back = read_back(tmp_path / "mydata")
    for name, prediction in PREDICTIONS.items():
        ids = np.pad(prediction.segment_map.numpy(), 1, constant_values=-1)  # the frame of an image is a border, too
        border = (ndimage.maximum_filter(ids, 5) != ndimage.minimum_filter(ids, 5))[1:-1, 1:-1]
        wrong = differing(prediction, *back[name])
        assert not (wrong & ~border).any()
        assert wrong.mean() < 0.05


def test_a_background_is_left_out_since_the_converter_fills_it(tmp_path: Path) -> None:
    classes = (Category(1, "cup", True, (1, 2, 3)), Category(2, "background", False, (7, 7, 7)))
    segment_map = torch.full((20, 30), 2, dtype=torch.int32)
    segment_map[5:10, 5:10] = 1
    prediction = PanopticMap(segment_map, (Segment(1, 0, score=0.9), Segment(2, 1, score=0.8)))
    out = write(tmp_path, {"a.png": prediction, "b.png": prediction}, Categories("own", classes))
    content = json.loads((out / "annotations.json").read_text())
    assert [a["segmentation"] for a in content["annotations"]] == [[[5, 5, 5, 10, 10, 10, 10, 5]]] * 2
    assert [c["name"] for c in content["categories"]] == ["cup", "background"]
    _, names, _ = prepare(out / "annotations.json", root=tmp_path / "mydata", images=tmp_path / "images")
    assert all((map_ == np.where(segment_map == 1, "cup", "background")).all() for map_ in names.values())


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    out = write(tmp_path, PREDICTIONS, CATEGORIES, tolerance=0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(out / "annotations.json")
    assert [image["file_name"] for image in truth.loadImgs(truth.getImgIds())] == sorted(PREDICTIONS)
    assert len(truth.anns) == sum(len(prediction.segments) for prediction in PREDICTIONS.values())
    for annotation in truth.anns.values():
        mask = truth.annToMask(annotation)
        assert mask.sum() == annotation["area"]
        assert list(coco.toBbox(truth.annToRLE(annotation))) == annotation["bbox"]


@pytest.mark.long
def test_label_studio_tasks_hold_every_part_in_percent(tmp_path: Path) -> None:
    out = write(tmp_path, PREDICTIONS, CATEGORIES, tolerance=0)
    tasks = {task["data"]["image"]: task for task in json.loads((out / "label_studio.json").read_text())}
    for name, prediction in PREDICTIONS.items():
        (guess,) = tasks[f"/data/local-files/?d={name}"]["predictions"]
        size = prediction.segment_map.shape
        drawn: dict[str, np.ndarray] = {}
        for result in guess["result"]:
            assert (result["original_height"], result["original_width"]) == size
            points = np.array(result["value"]["points"]) * (size[1], size[0]) / 100
            (label,) = result["value"]["polygonlabels"]
            part = rasterized([points.ravel().tolist()], size)
            drawn[label] = part | drawn.get(label, np.zeros(size, bool))
        for label, mask in drawn.items():
            ids = [s.id for s in prediction.segments if CATEGORIES.names[s.label] == label]
            np.testing.assert_array_equal(mask, np.isin(prediction.segment_map, ids))


def test_label_studio_takes_tasks_and_interface_and_gives_coco_back(tmp_path: Path) -> None:
    """Its own converter, on tasks whose predictions somebody accepted as they are."""
    converter = pytest.importorskip("label_studio_converter")
    out = write(tmp_path, PREDICTIONS, CATEGORIES, tolerance=0)
    tasks = json.loads((out / "label_studio.json").read_text())
    accepted = [
        {"id": n, "data": task["data"], "annotations": [{"id": n, "result": task["predictions"][0]["result"]}]}
        for n, task in enumerate(tasks, 1)
    ]
    (tmp_path / "export").mkdir()
    (tmp_path / "export/tasks.json").write_text(json.dumps(accepted))
    export = converter.Converter((out / "label_studio.xml").read_text(), str(tmp_path / "export"))
    export.convert_to_coco(str(tmp_path / "export"), str(tmp_path / "coco"), output_image_dir=str(tmp_path / "no"))
    prepare(tmp_path / "coco/result.json", root=tmp_path / "mydata", images=tmp_path / "images", unlabeled="void")
    for name, (found, names) in read_back(tmp_path / "mydata").items():
        labels = np.zeros(found.shape, object)
        for number, label in names.items():
            labels[found == number] = label
        prediction = PREDICTIONS[name]
        for segment in prediction.segments:
            inside = (prediction.segment_map == segment.id).numpy()
            assert (labels[inside] == CATEGORIES.names[segment.label]).mean() > 0.95


@pytest.mark.long
def test_the_command_writes_both_and_goes_on_only_in_one_style(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(2):
        Image.fromarray(ShapesDataset(2, seed=n)[0].image).save(tmp_path / f"in/{n}.png")
    low = [f"inference.{n}" for n in ("thing_threshold=0", "stuff_threshold=0", "overlap=0", "pixel_threshold=0.02")]
    options = [f"ckpt={tiny_checkpoint}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "device=cpu", *low]
    options.append("outputs=[annotations,label_studio]")
    assert predict(compose_config(None, *options, root="predict")) == 0
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["0.png", "1.png"]
    assert {"circle", "square"} <= {c["name"] for c in content["categories"]}
    assert content["annotations"]
    assert (tmp_path / "out/label_studio.xml").read_text().count("<Label ") == len(content["categories"])
    with pytest.raises(ValueError, match=r"polygon_tolerance=1\.0, not 0\.5"):
        predict(compose_config(None, *options, "polygon_tolerance=0.5", root="predict"))

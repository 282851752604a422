"""COCO instances: what CVAT, Roboflow and Label Studio make of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from small_sources import SQUARE, H, W, coco, picture, prepare

TIME = 10**18


def entry(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 0, "category_id": 0, "segmentation": [SQUARE], **changes}


def test_coco_ids_from_zero_without_iscrowd_and_a_picture_without_annotations(tmp_path: Path) -> None:
    _, names, _ = prepare(coco(tmp_path / "in"))
    assert (names["a"] == "cup").sum() == 100
    assert (names["b"] == "background").all()


def test_coco_root_class_of_roboflow_is_dropped(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "cups", "supercategory": "none"}, {"id": 1, "name": "cup", "supercategory": "cups"}]
    folder = coco(tmp_path / "in", categories=categories, annotations=[entry(category_id=1)])
    prepare(folder)
    content = json.loads((tmp_path / "in-out/annotations/panoptic_train.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["cup", "background"]


def test_coco_roboflow_layout_with_its_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("valid", 2), ("test", 1)):
        images = [{"id": n, "file_name": f"{split}{n}.png", "height": H, "width": W} for n in range(count)]
        for image in images:
            picture(tmp_path / "in" / split / str(image["file_name"]))
        content = {"images": images, "annotations": [entry()], "categories": [{"id": 0, "name": "cup"}]}
        (tmp_path / "in" / split / "_annotations.coco.json").write_text(json.dumps(content))
    written, _, _ = prepare(tmp_path / "in")
    assert dict(written.image_counts) == {"train": 3, "val": 2}
    assert written.left_out["image of a test split"] == 1
    written, _, _ = prepare(tmp_path / "in", val=0.4)
    assert sum(written.image_counts.values()) == 5


@pytest.mark.parametrize(
    "name",
    ["images\\a.png", "../../label-studio/data/media/upload/1/0f00dcab-a.png", "/data/upload/1/0f00dcab-a.png",
     "/data/local-files/?d=x/images/a.png", "http://somewhere/images/a.png", "A.PNG"],
)  # fmt: skip
def test_coco_names_of_pictures(name: str, tmp_path: Path) -> None:
    images = [{"id": 0, "file_name": name, "height": H, "width": W}, {"id": 1, "file_name": "b.png"}]
    _, names, _ = prepare(coco(tmp_path / "in", images=images))
    assert (names["a"] == "cup").sum() == 100


def test_coco_names_that_fit_several_files_are_not_guessed(tmp_path: Path) -> None:
    folder = coco(tmp_path / "in", images=[{"id": n, "file_name": f"{c}.png"} for n, c in enumerate("abx")])
    for place in ("one", "two"):
        picture(folder / place / "x.png")
    written, names, _ = prepare(folder)
    assert set(names) == {"a", "b"}
    assert written.left_out["image that is listed but missing, or whose name fits several files"] == 1


def test_coco_masks_of_cvat_are_no_crowd(tmp_path: Path) -> None:
    code = {"size": [H, W], "counts": [0, 100, H * W - 100]}
    cases = [entry(segmentation=code, iscrowd=1, attributes={"occluded": False}), entry(iscrowd=1)]
    prepare(coco(tmp_path / "in", annotations=cases))
    found = [
        s["iscrowd"]
        for split in ("train", "val")
        for a in json.loads((tmp_path / f"in-out/annotations/panoptic_{split}.json").read_text())["annotations"]
        for s in a["segments_info"]
    ]
    assert sorted(found) == [0, 0, 0, 1]


def test_coco_boxes_flat_polygons_and_strings(tmp_path: Path) -> None:
    annotations = [
        entry(segmentation=[]),
        entry(segmentation=SQUARE, image_id="0", category_id="0"),
        entry(image_id=77),
    ]
    written, names, _ = prepare(coco(tmp_path / "in", annotations=annotations))
    assert written.left_out["annotation without a mask (a box alone)"] == 1
    assert written.left_out["annotation of an image that is not listed"] == 1
    assert (names["a"] == "cup").sum() == 100


def test_coco_names_that_occur_twice_are_told_apart(tmp_path: Path) -> None:
    categories = [{"id": n, "name": "other", "supercategory": kind} for n, kind in enumerate(("fruit", "tool"))]
    annotations = [entry(), entry(category_id=1, segmentation=[[30, 30, 40, 30, 40, 38, 30, 38]])]
    _, _, segments = prepare(coco(tmp_path / "in", categories=categories, annotations=annotations))
    assert sorted(segments["a"]) == ["background", "fruit/other", "tool/other"]


def test_coco_byte_order_mark_and_utf_16(tmp_path: Path) -> None:
    for n, encoding in enumerate(("utf-8-sig", "utf-16")):
        folder = coco(tmp_path / f"in{n}", categories=[{"id": 0, "name": "Täßchen"}])
        file = folder / "coco.json"
        file.write_text(json.dumps(json.loads(file.read_text()), ensure_ascii=False), encoding)
        _, names, _ = prepare(folder)
        assert (names["a"] == "Täßchen").sum() == 100


def test_a_run_length_code_of_another_size_leaves_the_picture_out(tmp_path: Path) -> None:
    code = {"size": [W, H], "counts": [H * W]}
    images = [{"id": n, "file_name": f"{c}.png"} for n, c in enumerate("abc")]
    folder = coco(tmp_path / "in", "abc", annotations=[entry(segmentation=code)], images=images)
    written, names, _ = prepare(folder, seed=1)
    assert set(names) == {"b", "c"}
    assert "images/a.png (COCO instances JSON): a run-length code is 40×60" in written.refused[0]


def test_a_new_export_makes_only_what_has_changed(tmp_path: Path) -> None:
    sizes = [{"id": n, "file_name": f"{c}.png"} for n, c in enumerate("ab")]
    folder = coco(tmp_path / "in", images=sizes)
    for name in "ab":
        os.utime(folder / "images" / f"{name}.png", ns=(TIME, TIME))
    prepare(folder)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("in-out/annotations/*/*.png")}
    images = [{"id": f"x{n}", "file_name": f"{c}.png"} for n, c in enumerate("abc")]  # other ids, one image more
    coco(folder, "abc", images=images, annotations=[entry(image_id="x0"), entry(image_id="x1")])
    for name in "ab":
        os.utime(folder / "images" / f"{name}.png", ns=(TIME, TIME))
    prepare(folder)
    after = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("in-out/annotations/*/*.png")}
    assert set(after) == {"a.png", "b.png", "c.png"}
    assert after["a.png"] == before["a.png"]
    assert after["b.png"] != before["b.png"]

"""Labelme: what its versions write beside polygons."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from small_sources import SQUARE, H, W, picture, prepare


def labelme(folder: Path, name: str, shapes: list[dict[str, Any]], **changes: Any) -> None:
    if changes.pop("with_picture", True):
        picture(folder / f"{name}.png")
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": [{"label": "cup", "group_id": None, "shape_type": "polygon", "flags": {}, **s} for s in shapes],
        "imagePath": f"{name}.png",
        "imageData": None,
        "imageHeight": H,
        "imageWidth": W,
        **changes,
    }
    (folder / f"{name}.json").write_text(json.dumps(content))


def corners(*flat: float) -> list[list[float]]:
    return np.reshape(flat, (-1, 2)).tolist()


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A Labelme folder with one image that is of no interest."""
    folder = tmp_path / "in"
    folder.mkdir()
    labelme(folder, "other", [{"points": corners(*SQUARE)}])
    return folder


def test_labelme_rectangle_circle_and_old_files(two: Path) -> None:
    shapes = [
        {"label": "box", "shape_type": "rectangle", "points": [[30, 30], [10, 20]]},
        {"label": "ball", "shape_type": "circle", "points": [[45, 20], [45, 28]]},
    ]
    labelme(two, "a", shapes)
    old = json.loads((two / "other.json").read_text())
    del old["shapes"][0]["shape_type"]
    del old["shapes"][0]["group_id"]
    (two / "other.json").write_text(json.dumps(old))
    _, names, _ = prepare(two)
    assert (names["a"] == "box").sum() == 200
    assert abs((names["a"] == "ball").sum() - np.pi * 64) < 8
    assert (names["other"] == "cup").sum() == 100


def test_labelme_groups_join_and_later_shapes_lie_on_top(two: Path) -> None:
    shapes: list[dict[str, Any]] = [
        {"points": corners(*SQUARE), "group_id": 3},
        {"points": corners(30, 10, 40, 10, 40, 20, 30, 20), "group_id": 3},
        {"label": "table", "points": corners(12, 12, 50, 12, 50, 30, 12, 30)},
    ]
    labelme(two, "a", shapes)
    _, names, segments = prepare(two)
    assert segments["a"].count("cup") == 1
    assert names["a"][15, 15] == "table"


def test_labelme_lines_and_points_are_counted(two: Path) -> None:
    shapes = [{"shape_type": kind, "points": corners(1, 1, 5, 5)} for kind in ("line", "point", "linestrip", "polygon")]
    labelme(two, "a", shapes)
    written, _, _ = prepare(two)
    assert written.left_out["shape of type line"] == written.left_out["shape of type point"] == 1
    assert written.left_out["polygon without enough points"] == 1


def test_labelme_picture_inside_the_file(two: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (W, H), (1, 2, 3)).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    labelme(two, "a", [{"points": corners(*SQUARE)}], imageData=data, imagePath="C:\\lost\\a.png", with_picture=False)
    _, names, _ = prepare(two)
    assert (names["a"] == "cup").sum() == 100
    assert Image.open(next(two.parent.glob("in-out/*/a.png"))).getpixel((0, 0)) == (1, 2, 3)


def test_labelme_ignore_label_and_foreign_path(two: Path) -> None:
    labelme(two, "a", [{"label": "__ignore__", "points": corners(*SQUARE)}], imagePath="..\\images\\a.png")
    _, names, _ = prepare(two)
    assert (names["a"] == "").sum() == 100
    assert (names["a"] == "background").sum() == H * W - 100


def test_labelme_what_misses_its_other_half_is_counted(two: Path) -> None:
    picture(two / "lonely.png")
    labelme(two, "gone", [], with_picture=False)
    labelme(two, "a", [])
    written, names, _ = prepare(two)
    assert written.left_out["image without a JSON file"] == 1
    assert written.left_out["JSON whose image is missing (gone.png)"] == 1
    assert (names["a"] == "background").all()


def test_labelme_two_files_of_one_image_and_names_that_sound_like_splits(two: Path) -> None:
    labelme(two, "train_station", [{"points": corners(*SQUARE)}])
    labelme(two, "test1", [])
    labelme(two, "twin", [], imagePath="test1.png", with_picture=False)
    written, names, _ = prepare(two)
    assert set(names) == {"other", "train_station", "test1"}
    assert written.left_out == {"second annotation file of one image": 1}


def test_labelme_damaged_image_and_mask_inside_the_file(two: Path) -> None:
    labelme(two, "a", [], imageData="bm8gaW1hZ2U=", with_picture=False)
    labelme(two, "b", [{"shape_type": "mask", "points": corners(1, 1, 5, 5), "mask": "bm8gaW1hZ2U="}])
    labelme(two, "c", [])
    written, names, _ = prepare(two, val=0.5)
    assert set(names) == {"other", "c"}
    assert all("what is stored inside the JSON is no image" in sentence for sentence in written.refused)
    assert len(written.refused) == 2

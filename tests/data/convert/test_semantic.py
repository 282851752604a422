"""Semantic maps: void values, layouts, lists of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kmax.data.convert.class_list import read_class_list
from small_sources import H, W, picture, prepare


def semantic(folder: Path, values: np.ndarray, classes: str, file: str = "classes.txt") -> Path:
    for name in ("a", "b"):
        picture(folder / "images" / f"{name}.png")
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(values.astype(np.uint8)).save(folder / "masks" / f"{name}.png")
    (folder / file).write_text(classes)
    return folder


def stripes(*values: int) -> np.ndarray:
    return np.repeat(values, H * W // len(values)).reshape(H, W)


def test_semantic_void_values(tmp_path: Path) -> None:
    _, names, _ = prepare(semantic(tmp_path / "in", stripes(0, 1, 2, 255), "1 sky\n2 road\n"))
    assert [(names["a"] == n).sum() for n in ("", "sky", "road")] == [1200, 600, 600]
    folder = semantic(tmp_path / "in2", stripes(0, 1, 255), "0 void\n1 sky\n255 cloud\n")
    _, names, _ = prepare(folder, unlabeled="background")
    assert [(names["a"] == n).sum() for n in ("", "sky", "cloud")] == [800, 800, 800]


def test_semantic_side_by_side_with_roboflows_list(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        picture(tmp_path / "in" / split / "a.jpg")
        Image.fromarray(stripes(0, 1).astype(np.uint8)).save(tmp_path / "in" / split / "a_mask.png")
        (tmp_path / "in" / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, crack\n")
    written, names, _ = prepare(tmp_path / "in", things=("crack",))
    assert dict(written.image_counts) == {"train": 1, "val": 1}
    assert {name for map_ in names.values() for name in np.unique(map_)} == {"background", "crack"}


def test_semantic_value_that_is_not_listed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"semantic maps and has the value 9, which .*classes.txt lacks"):
        prepare(semantic(tmp_path / "in", stripes(1, 9), "1 sky\n"))


@pytest.mark.parametrize(
    ("name", "text", "by_value", "by_color"),
    [
        ("a.txt", "sky\nroad\n", {0: "sky", 1: "road"}, {}),
        ("a.txt", "__ignore__\n_background_\ncar\n", {255: "__ignore__", 0: "_background_", 1: "car"}, {}),
        ("a.txt", "7 traffic light\n8: pole\n", {7: "traffic light", 8: "pole"}, {}),
        ("a.txt", "car 0 0 142\n", {}, {142: "car"}),
        ("a.txt", "0 0 142 car\n", {}, {142: "car"}),
        ("labelmap.txt", "# label:color_rgb:parts:actions\ncar:0,1,2::\n", {}, {258: "car"}),
        ("a.csv", "name,r,g,b\ncar,0,0,142\n", {}, {142: "car"}),
        ("a.json", '["sky", "road"]', {0: "sky", 1: "road"}, {}),
        ("a.json", '{"3": "sky"}', {3: "sky"}, {}),
        ("a.json", '{"sky": 3}', {3: "sky"}, {}),
        ("a.json", '{"sky": [0, 0, 9]}', {}, {9: "sky"}),
        ("a.json", '{"labels": [{"name": "x--sky", "readable": "Sky", "color": [0, 0, 9]}]}', {}, {9: "Sky"}),
    ],
)
def test_lists_of_classes(name: str, text: str, by_value: dict, by_color: dict, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    found = read_class_list(tmp_path / name)
    assert (dict(found.by_value), dict(found.by_color)) == (by_value, by_color)

"""EXIF orientation and sizes, for every format."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_sources import H, W, coco, picture, prepare


@pytest.mark.parametrize("orientation", range(1, 9))
def test_annotations_are_understood_as_a_viewer_shows_the_picture(orientation: int, tmp_path: Path) -> None:
    turned = orientation >= 5
    height, width = (W, H) if turned else (H, W)
    images = [{"id": n, "file_name": f"{c}.png", "height": height, "width": width} for n, c in enumerate("ab")]
    folder = coco(tmp_path / "in", images=images)
    for name in ("a", "b"):
        picture(folder / "images" / f"{name}.png", orientation)
    written, names, _ = prepare(folder)
    assert names["a"].shape == (height, width)
    assert (names["a"][10:20, 10:20] == "cup").all()
    assert not written.refused


def test_annotations_of_the_stored_picture_are_turned(tmp_path: Path) -> None:
    folder = coco(tmp_path / "in")
    for name in ("a", "b"):
        picture(folder / "images" / f"{name}.png", orientation=6)  # a viewer turns it clockwise
    written, names, _ = prepare(folder)
    assert names["a"].shape == (W, H)
    assert (names["a"][10:20, H - 20 : H - 10] == "cup").all()
    assert written.left_out["annotation of an image as stored, turned as its EXIF data say"] == 2


def test_an_annotation_of_another_size_leaves_the_picture_out(tmp_path: Path) -> None:
    folder = coco(tmp_path / "in", "abc")
    picture(folder / "images" / "a.png", size=(20, 30))
    written, names, _ = prepare(folder, val=0.5)
    assert set(names) == {"b", "c"}
    assert written.refused == (
        "images/a.png (COCO instances JSON): the annotation is for 60×40 pixels but the image has 30×20",
    )

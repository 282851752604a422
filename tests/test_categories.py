"""Categories are data: official counts, distinct colors, and a way through a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmax.categories import Categories, default_color, load_categories

COUNTS = {"coco": (133, 80), "cityscapes": (19, 8), "ade20k": (150, 100), "shapes": (10, 6)}


@pytest.mark.parametrize("name", COUNTS)
def test_official_counts(name: str) -> None:
    categories = load_categories(name)
    assert (categories.num_classes, sum(categories.is_thing)) == COUNTS[name]
    assert len({c.color for c in categories.classes}) > 0.9 * categories.num_classes
    assert [categories.label_of[i] for i in categories.ids] == list(range(categories.num_classes))


def test_coco_classes_are_ordered_by_id() -> None:
    ids = load_categories("coco").ids
    assert list(ids) == sorted(ids)
    assert (ids[0], ids[-1]) == (1, 200)


def test_there_and_back() -> None:
    categories = load_categories("cityscapes")
    assert Categories.from_dict(categories.to_dict()) == categories


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"pascal is unknown: choose one of ade20k, cityscapes, coco, shapes"):
        load_categories("pascal")


def test_a_class_without_a_color_is_refused() -> None:
    with pytest.raises(ValueError, match="color"):
        Categories.from_dict({"name": "mine", "classes": [{"id": 1, "name": "a", "isthing": 1}]})


PANOPTIC = {
    "images": [{"id": 1, "file_name": '"categories": [1]'}],
    "annotations": [],
    "categories": [
        {"id": 7, "name": "a [thing]", "isthing": 1, "color": [1, 2, 3]},
        {"id": 3, "name": "stuff", "isthing": 0},
    ],
}


@pytest.mark.parametrize("indent", [None, 4])
def test_a_panoptic_file_brings_its_categories(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "panoptic_train.json"
    path.write_text(json.dumps(PANOPTIC, indent=indent))
    categories = load_categories(str(path))
    assert (categories.ids, categories.names, categories.is_thing) == ((7, 3), ("a [thing]", "stuff"), (True, False))
    assert categories.classes[0].color == (1, 2, 3)
    assert Categories.from_dict(categories.to_dict()) == categories


def test_a_file_like_ours_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(load_categories("shapes").to_dict()))
    assert load_categories(str(path)) == load_categories("shapes")


def test_default_colors_are_distinct() -> None:
    assert len({default_color(label) for label in range(200)}) > 195


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "There is no"),
        ("", "not valid JSON"),
        ('{"images": [], "categories": [{"id": 1,', "not valid JSON"),
        ('{"images": []}', "neither categories"),
        ('{"categories": []}', "are empty"),
        ('{"shapes": []}', r"neither categories .*prepare_own\.py"),
        (
            '{"categories": [{"id": 1, "name": "a"}]}',
            r"no panoptic JSON, since a category lacks 'isthing'.*prepare_own",
        ),
        (
            '{"categories": [{"id": 1, "name": "a", "isthing": 1}, {"id": 1, "name": "b", "isthing": 0}]}',
            "repeat an id",
        ),
    ],
)
def test_a_file_without_usable_categories_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "bad.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_categories(str(path))

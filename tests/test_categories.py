"""Categories are data: official counts, distinct colours, and a way through a checkpoint."""

from __future__ import annotations

import pytest

from kmax.categories import Categories, load_categories

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


def test_a_class_without_a_colour_is_refused() -> None:
    with pytest.raises(ValueError, match="color"):
        Categories.from_dict({"name": "mine", "classes": [{"id": 1, "name": "a", "isthing": 1}]})

"""The rules for overlaps, stuff, crowd, and pixels of nobody."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmax.categories import Categories, Category
from kmax.data.convert import shapes
from kmax.data.convert.paint import HIDDEN, Rules, draw
from kmax.data.convert.source import LabelMap, Region, Shapes, Tag

SIZE = (8, 12)
CATEGORIES = Categories(
    "own",
    (
        Category(1, "car", True, (1, 1, 1)),
        Category(2, "sky", False, (2, 2, 2)),
        Category(3, "background", False, (3, 3, 3)),
    ),
)
ID_OF = {"car": 1, "sky": 2}


def rules(**changes: object) -> Rules:
    return Rules(CATEGORIES, ID_OF, **changes)  # type: ignore[arg-type]


def box(label: str, left: int, top: int, right: int, bottom: int, **rest: object) -> Region:
    rle = shapes.rectangle([[left, top], [right, bottom]], SIZE)
    assert rle is not None
    return Region(label, rle, **rest)  # type: ignore[arg-type]


def categories(regions: list[Region], **changes: object) -> np.ndarray:
    """Category id of every pixel (H, W), 0 = void."""
    drawing = draw(Shapes(tuple(regions)), SIZE, rules(**changes))
    table = np.array([0, *(drawing.segments[n][0] for n in range(1, len(drawing.segments) + 1))])
    return table[drawing.segment_map]


def test_without_an_order_the_smaller_lies_on_top() -> None:
    small, large = box("car", 2, 2, 4, 4), box("sky", 0, 0, 8, 8)
    for regions in ([small, large], [large, small]):
        assert categories(regions)[3, 3] == 1


def test_parts_of_a_group_count_as_one_for_the_order() -> None:
    group = [box("car", 0, 0, 4, 8, group="a"), box("car", 6, 0, 10, 2, group="a")]  # 32 + 8 pixels
    found = draw(Shapes((*group, box("car", 6, 0, 9, 4))), SIZE, rules())  # 12 pixels, more than the small part's 8
    assert len(found.segments) == 2
    assert found.segment_map[1, 7] == found.segment_map[3, 7] != found.segment_map[1, 1]


def test_with_an_order_the_later_lies_on_top() -> None:
    regions = [box("car", 2, 2, 4, 4, order=1), box("sky", 0, 0, 8, 8, order=2)]
    assert categories(regions, is_ordered=True)[3, 3] == 2


def test_stuff_is_one_segment_and_things_are_many() -> None:
    regions = [box(name, 4 * n, 0, 4 * n + 2, 2) for name in ("sky", "car") for n in range(3)]
    apart = [box("car", 4 * n, 4, 4 * n + 2, 6) for n in range(3)]
    found = draw(Shapes((*regions[:3], *apart)), SIZE, rules())
    assert sorted(category for category, _ in found.segments.values()) == [1, 1, 1, 2]


def test_a_group_joins_parts_of_one_class_only() -> None:
    parts = [box("car", 0, 0, 2, 2, group="7"), box("car", 6, 0, 8, 2, group="7"), box("sky", 0, 4, 2, 6, group="7")]
    found = draw(Shapes(tuple(parts)), SIZE, rules())
    assert sorted(found.segments.values()) == [(1, False), (2, False)]
    assert found.segment_map[1, 1] == found.segment_map[1, 7]


def test_crowd_lies_below_and_stays_crowd() -> None:
    found = draw(Shapes((box("car", 0, 0, 2, 2), box("car", 0, 0, 1, 1, crowd=True))), SIZE, rules())
    assert set(found.segments.values()) == {(1, False)}
    assert found.left_out == {HIDDEN: 1}
    found = draw(Shapes((box("car", 0, 0, 2, 2), box("car", 0, 0, 8, 8, crowd=True))), SIZE, rules())
    assert sorted(found.segments.values()) == [(1, False), (1, True)]


def test_pixels_of_nobody_are_background_or_void() -> None:
    region = [box("car", 2, 2, 4, 4)]
    assert (categories(region) == 0).sum() == 8 * 12 - 4
    assert (categories(region, rest=3) == 3).sum() == 8 * 12 - 4
    assert (categories([], rest=3) == 3).all()
    assert (categories(region, rest=2)[0] == 2).all()  # a class of the source may be the background


def test_ignored_classes_are_void_even_over_background() -> None:
    found = categories([box("car", 0, 0, 4, 4), box("blur", 2, 2, 6, 6)], ignored=frozenset({"blur"}), rest=3)
    assert found[3, 3] == 0
    assert found[1, 1] == 1
    assert found[7, 7] == 3


def test_classes_that_are_left_out_cover_nothing_and_are_counted() -> None:
    drawing = draw(Shapes((box("car", 0, 0, 4, 4), box("dog", 1, 1, 3, 3))), SIZE, rules())
    assert len(np.unique(drawing.segment_map[:4, :4])) == 1
    assert drawing.left_out == {"of a class that is left out (dog)": 1}


def test_small_segments_become_void() -> None:
    drawing = draw(Shapes((box("car", 0, 0, 4, 4), box("car", 6, 0, 7, 1))), SIZE, rules(min_area=2, rest=3))
    assert drawing.left_out == {"smaller than --min-area": 1}
    assert drawing.segment_map[0, 6] == 0


@pytest.mark.parametrize(("split", "count"), [(False, 1), (True, 2)])
def test_things_of_a_map_are_split_by_diagonal_neighbors(split: bool, count: int) -> None:
    values = np.zeros(SIZE, np.int32)
    values[0, 0] = values[1, 1] = values[5, 5] = 9
    values[7] = 4
    drawing = draw(LabelMap(values, {9: Tag("car"), 4: Tag("sky")}), SIZE, rules(split=split))
    assert sum(category == 1 for category, _ in drawing.segments.values()) == count
    assert drawing.segment_map[0, 0] == drawing.segment_map[1, 1]


def test_values_of_one_stuff_class_merge() -> None:
    values = np.repeat(np.arange(4, dtype=np.int32), 24).reshape(SIZE)
    drawing = draw(LabelMap(values, {1: Tag("sky"), 2: Tag("sky"), 3: Tag("car", crowd=True)}), SIZE, rules())
    assert sorted(drawing.segments.values()) == [(1, True), (2, False)]


@given(
    st.lists(st.tuples(*[st.integers(-3, 14)] * 4, st.sampled_from(["car", "sky", "dog"])), max_size=8), st.booleans()
)
def test_segments_are_numbered_and_have_pixels(boxes: list[tuple], fill: bool) -> None:
    regions = []
    for left, top, right, bottom, label in boxes:
        rle = shapes.rectangle([[left, top], [right, bottom]], SIZE)
        assert rle is not None
        regions.append(Region(label, rle))
    drawing = draw(Shapes(tuple(regions)), SIZE, rules(rest=3 if fill else None))
    present = set(np.unique(drawing.segment_map).tolist()) - {0}
    assert present == set(drawing.segments) == set(range(1, len(present) + 1))
    assert not fill or (drawing.segment_map > 0).all()


@pytest.mark.parametrize("value", [1e12, -1e12, 40.0])
def test_points_far_away_cost_nothing(value: float) -> None:
    rle = shapes.polygons([[0, 0, value, 0, value, 4, 0, 4]], SIZE)
    assert rle is not None
    assert shapes.area(rle) == (48 if value > 0 else 0)


@pytest.mark.parametrize("points", [[], [1, 2, 3, 4], [0, 0, float("nan"), 1, 2, 2], [0, 0, 1, 1, 2, 2, 3]])
def test_what_is_no_polygon(points: list[float]) -> None:
    assert shapes.polygons([points], SIZE) is None


@given(st.lists(st.booleans(), min_size=96, max_size=96))
def test_both_run_length_codes_are_the_mask(bits: list[bool]) -> None:
    mask = np.array(bits).reshape(SIZE)
    rle = shapes.bitmap(mask, 0, 0, SIZE)
    np.testing.assert_array_equal(shapes.decode(rle), mask)
    text = {"size": list(SIZE), "counts": rle["counts"].decode()}
    np.testing.assert_array_equal(shapes.decode(shapes.run_lengths(text, SIZE)), mask)


@pytest.mark.parametrize(
    "code",
    [
        {"size": [8, 12], "counts": [90]},
        {"size": [8, 12], "counts": [100, -4]},
        {"size": [12, 8], "counts": [96]},
        {"size": [8, 12], "counts": "abc"},
        {"size": [8, 12], "counts": "o0~~"},
    ],
)
def test_run_lengths_that_contradict_the_picture_are_refused(code: dict) -> None:
    with pytest.raises(ValueError, match="run-length code"):
        shapes.run_lengths(code, SIZE)

"""Pictures: sizes, colors, what is drawn where."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from kmax.categories import load_categories
from kmax.structures import PanopticMap, Sample, Segment
from kmax.visualization import draw_panoptic, panel, segment_colors, with_legend

CATEGORIES = load_categories("coco")
PERSON = CATEGORIES.names.index("person")
STUFF = CATEGORIES.is_thing.index(False)


def sample(height: int, width: int) -> Sample:
    """Stuff on the left, two people (the second a crowd) on the right, void at the bottom."""
    segment_map = np.full((height, width), 70000, np.int32)
    segment_map[:, width // 2 :] = 2
    segment_map[: height // 3, width // 2 :] = 3
    segment_map[-(height // 4) :] = 0
    segments = (Segment(70000, STUFF), Segment(2, PERSON), Segment(3, PERSON, crowd=True))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(image, segment_map, segments, 1)


def prediction(truth: Sample) -> PanopticMap:
    present = np.unique(truth.segment_map)  # tiny maps lack some
    return PanopticMap(torch.as_tensor(truth.segment_map), tuple(s for s in truth.segments if s.id in present))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 500), (97, 97), (300, 40), (480, 640)])
def test_panel_of_any_size(height: int, width: int) -> None:
    truth = sample(height, width)
    clusters = np.arange(height * width).reshape(height, width)[::4, ::4] % 128
    picture = panel(truth.image, truth, prediction(truth), clusters, CATEGORIES, long_side=200)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert picture.shape[0] >= 200 * height / max(height, width)
    assert picture.shape[1] >= 5 * 200 * width / max(height, width)


def test_prediction_and_truth_are_drawn_alike_and_nothing_is_changed() -> None:
    truth = sample(60, 80)
    before = truth.image.copy()
    first = draw_panoptic(truth.image, truth, CATEGORIES)
    np.testing.assert_array_equal(first, draw_panoptic(truth.image, prediction(truth), CATEGORIES))
    np.testing.assert_array_equal(truth.image, before)
    assert first.shape == truth.image.shape


def test_segments_wear_their_colors_and_void_is_dark_gray() -> None:
    truth = sample(60, 80)
    gray = np.full_like(truth.image, 128)
    picture = draw_panoptic(gray, truth, CATEGORIES, labels=False).astype(int)
    void, person = picture[55, 10], picture[30, 60]
    assert len(set(void.tolist())) == 1
    assert abs(void[0] - (0.65 * 72 + 0.35 * 128)) <= 1
    black = draw_panoptic(np.zeros_like(gray), truth, CATEGORIES, labels=False)
    assert black[55, 10].min() > 32  # void is lighter than a black image
    color = np.array(segment_colors(truth.segments, CATEGORIES)[2])
    assert np.abs(person - (0.65 * color + 0.35 * 128)).max() <= 1
    assert (picture[10, 39] == 255).all()  # a contour


def test_opacity_leads_from_the_image_to_flat_colors() -> None:
    truth = sample(60, 80)
    np.testing.assert_array_equal(draw_panoptic(truth.image, truth, CATEGORIES, opacity=0), truth.image)
    flat = draw_panoptic(truth.image, truth, CATEGORIES, labels=False, opacity=1)
    assert tuple(flat[30, 60]) == segment_colors(truth.segments, CATEGORIES)[2]
    default = draw_panoptic(truth.image, truth, CATEGORIES)
    np.testing.assert_array_equal(default, draw_panoptic(truth.image, truth, CATEGORIES, opacity=0.65))
    distance = [
        np.abs(draw_panoptic(truth.image, truth, CATEGORIES, False, opacity=opacity).astype(int) - truth.image).mean()
        for opacity in (0.01, 0.2, 0.4, 0.6)
    ]
    assert distance == sorted(distance)
    assert distance[0] < 3  # no jump near 0


def test_names_are_written_where_they_fit() -> None:
    large, small = sample(300, 400), sample(12, 16)
    for truth, written in ((large, True), (small, False)):
        labeled, plain = (draw_panoptic(truth.image, truth, CATEGORIES, labels=x) for x in (True, False))
        assert (labeled != plain).any() == written
        assert (labeled[truth.segment_map == 0] == plain[truth.segment_map == 0]).all()


def test_things_of_a_class_differ_and_colors_are_stable() -> None:
    people = [Segment(i + 1, PERSON) for i in range(28)]
    colors = segment_colors(people, CATEGORIES)
    assert colors[1] == CATEGORIES.classes[PERSON].color
    assert len(set(colors.values())) >= 20
    assert colors == segment_colors(people, CATEGORIES)
    stuff = segment_colors([Segment(5, STUFF), Segment(9, STUFF)], CATEGORIES)
    assert stuff[5] == stuff[9] == CATEGORIES.classes[STUFF].color


def test_every_shade_of_a_class_has_its_hue_and_follows_identities() -> None:
    things = [label for label, thing in enumerate(CATEGORIES.is_thing) if thing]
    for label in things:
        crowd = [Segment(i, label) for i in range(1, 85)]
        shades = segment_colors(crowd, CATEGORIES, identities=True)
        base, *hues = (colorsys.rgb_to_hsv(*color)[0] for color in (CATEGORIES.classes[label].color, *shades.values()))
        assert all(min((hue - base) % 1, (base - hue) % 1) < 0.05 for hue in hues)
    later = segment_colors([Segment(9, PERSON), Segment(4, PERSON)], CATEGORIES, identities=True)
    shades = segment_colors([Segment(i, PERSON) for i in range(1, 29)], CATEGORIES, identities=True)
    assert later == {4: shades[4], 9: shades[9]}
    assert len(set(shades.values())) == 28


def test_small_images_name_their_small_things_but_never_one_name_over_another() -> None:
    image = np.full((80, 110, 3), 90, np.uint8)
    segment_map = np.zeros((80, 110), np.int32)
    segment_map[5:17, 8:20], segment_map[50:64, 70:84] = 1, 2
    segments = (Segment(1, PERSON, score=0.5), Segment(2, PERSON, score=0.75))
    found = PanopticMap(torch.as_tensor(segment_map), segments)
    plain, named = (draw_panoptic(image, found, CATEGORIES, labels=x) for x in (False, True))
    written = (plain != named).any(2)
    assert written[:25].any()
    assert written[45:].any()
    assert not written[25:45].any()
    longer = (plain != draw_panoptic(image, found, CATEGORIES, scores=True, identities=False)).any(2)
    assert longer.sum() > written.sum()
    segment_map[5:17, 24:36] = 2  # beside the first: there is room for one name only
    segment_map[50:64] = 0
    both = (
        plain_of(image, segment_map, segments)
        != draw_panoptic(image, PanopticMap(torch.as_tensor(segment_map), segments), CATEGORIES)
    ).any(2)
    alone = segments[:1]
    segment_map[segment_map == 2] = 0
    one = (
        plain_of(image, segment_map, alone)
        != draw_panoptic(image, PanopticMap(torch.as_tensor(segment_map), alone), CATEGORIES)
    ).any(2)
    assert (both != one).sum() < 5  # a letter's color may be that of what lies below


def plain_of(image: np.ndarray, segment_map: np.ndarray, segments: tuple[Segment, ...]) -> np.ndarray:
    return draw_panoptic(image, PanopticMap(torch.as_tensor(segment_map), segments), CATEGORIES, labels=False)


def test_the_legend_names_every_class_once() -> None:
    truth = sample(120, 160)
    plain = draw_panoptic(truth.image, truth, CATEGORIES)
    picture = with_legend(plain, truth.segments, CATEGORIES)
    assert picture.shape[0] == 120
    assert picture.shape[1] > 160
    np.testing.assert_array_equal(picture[:, :160], plain)
    colors = segment_colors(truth.segments, CATEGORIES)
    column = picture[:, 160:].reshape(-1, 3)
    for segment in truth.segments:  # both people, each in its own color
        assert (column == colors[segment.id]).all(-1).sum() >= 20
    assert with_legend(plain, (), CATEGORIES).shape[1] > 160


@pytest.mark.parametrize("height", [10, 60, 400])
def test_a_legend_of_many_classes_fits(height: int) -> None:
    picture = np.zeros((height, 300, 3), np.uint8)
    segments = [Segment(i + 1, i % 133) for i in range(400)]
    result = with_legend(picture, segments, CATEGORIES)
    assert result.shape[0] == height
    assert (result[:, -1] == 255).all()  # nothing is cut

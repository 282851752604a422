"""Augmentation: crop-then-resize equals resize-then-crop, and nothing depends on anything but the generator."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kmax.data import ShapesDataset
from kmax.data.transforms import (
    Window,
    _hue_saturation,
    draw_window,
    drop_hidden,
    jitter_color,
    resize_image,
    resize_map,
    transform_sample,
)
from kmax.geometry import fit
from kmax.images import resize_and_pad

DATASET = ShapesDataset(20, seed=5)
sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(sizes, sizes)
def test_fit_just_fits(image: tuple[int, int], box: tuple[int, int]) -> None:
    height, width = fit(image, box)
    assert height <= box[0]
    assert width <= box[1]
    assert height == box[0] or width == box[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 19), st.integers(0, 10_000))
def test_the_window_alone_equals_the_window_of_the_whole(index: int, seed: int) -> None:
    sample = DATASET[index]
    size = (sample.image.shape[0], sample.image.shape[1])
    window = draw_window(size, (65, 97), (0.2, 2.0), True, np.random.default_rng(seed))
    top, left, height, width = window.crop
    whole = Image.fromarray(sample.image).resize(window.resized[::-1], Image.Resampling.BILINEAR)
    expected = np.asarray(whole)[top : top + height, left : left + width].astype(int)
    actual = resize_image(sample.image, window)[:, :: -1 if window.flip else 1].astype(int)
    assert np.abs(actual - expected).max() <= 2
    assert actual.shape[0] <= 65
    assert actual.shape[1] <= 97
    nearest = Image.fromarray(sample.segment_map).resize(window.resized[::-1], Image.Resampling.NEAREST)
    cut = np.asarray(nearest)[top : top + height, left : left + width]
    ours = resize_map(sample.segment_map, window)[:, :: -1 if window.flip else 1]
    assert (ours == cut).mean() > 0.99


def test_flipping_twice_is_nothing() -> None:
    image = DATASET[0].image
    size = (image.shape[0], image.shape[1])
    flipped = resize_image(image, Window(size, (0, 0, *size), True))
    assert np.array_equal(flipped[:, ::-1], image)


def test_a_segment_that_leaves_the_crop_leaves_the_table() -> None:
    sample = DATASET[1]
    cut = transform_sample(sample, Window((sample.image.shape[0], sample.image.shape[1]), (0, 0, 3, 3), False))
    cut = drop_hidden(cut)
    assert {segment.id for segment in cut.segments} == set(np.unique(cut.segment_map)) - {0}
    assert len(cut.segments) < len(sample.segments)


@pytest.mark.parametrize("seed", range(12))
def test_color_jitter_is_deterministic_and_bounded(seed: int) -> None:
    image = np.full((8, 8, 3), (200, 120, 40), np.uint8)
    first = jitter_color(image, np.random.default_rng(seed))
    assert np.array_equal(first, jitter_color(image, np.random.default_rng(seed)))
    assert first.dtype == np.uint8
    assert (first == first[0, 0]).all()


def test_color_jitter_leaves_some_images_alone_and_changes_most() -> None:
    image = DATASET[2].image
    same = [np.array_equal(image, jitter_color(image, np.random.default_rng(seed))) for seed in range(100)]
    assert 0 < sum(same) < 30


def test_evaluation_pads_right_and_bottom() -> None:
    image = np.full((10, 20, 3), 255, np.uint8)
    padded, valid = resize_and_pad(image, (65, 65))
    assert padded.shape == (65, 65, 3)
    assert valid.sum() == 32 * 65
    assert (padded[valid] == 255).all()
    assert (padded[~valid] == 0).all()
    assert resize_and_pad(image[:1, :1], (33, 33))[1].all()


@pytest.mark.parametrize("turn", [-18.0, -7.5, 0.0, 7.5, 18.0])
@pytest.mark.parametrize("saturation", [0.5, 1.0, 1.5])
def test_hue_and_saturation_follow_their_definition(turn: float, saturation: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 13, 3), dtype=np.uint8)
    actual = _hue_saturation(image, turn, saturation).reshape(-1, 3)
    for pixel, found in zip(image.reshape(-1, 3), actual, strict=True):
        hue, s, value = colorsys.rgb_to_hsv(*(pixel / 255))
        expected = np.array(colorsys.hsv_to_rgb((hue + turn / 180) % 1, min(s * saturation, 1), value)) * 255
        assert np.abs(found - expected).max() < 9  # a step of hue is 2°: at most 255 / 30

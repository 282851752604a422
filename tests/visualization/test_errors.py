"""The error view: each fate in its color, counted as panoptic quality counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kmax.categories import load_categories
from kmax.metrics.panoptic_quality import count_segments
from kmax.structures import PanopticMap, Sample, Segment
from kmax.visualization import draw_errors, errors

CATEGORIES = load_categories("shapes")


def case() -> tuple[Sample, PanopticMap]:
    """Four columns of 20 pixels: void, a circle found too narrow, a square missed, a square seen as a circle."""
    truth, predicted = np.zeros((40, 80), np.int32), np.zeros((40, 80), np.int32)
    truth[:, 20:40], truth[:, 40:60], truth[:, 60:] = 1, 2, 3
    predicted[:, 20:36], predicted[:, 60:] = 7, 8
    sample = Sample(
        np.full((40, 80, 3), 128, np.uint8), truth, (Segment(1, 0), Segment(2, 1), Segment(3, 1)), 1, "x.png"
    )
    return sample, PanopticMap(torch.as_tensor(predicted), (Segment(7, 0), Segment(8, 0)))


def at(picture: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    """The color under the opacity of the overlay."""
    return tuple(round((v - 0.35 * 128) / 0.65) for v in picture[row, column].astype(float))


def close(found: tuple[int, ...], expected: tuple[int, int, int]) -> bool:
    return all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True))


def test_each_fate_has_its_color() -> None:
    truth, prediction = case()
    picture = draw_errors(truth.image, truth, prediction, CATEGORIES, key=False)
    assert picture.shape == (40, 80, 3)
    assert close(at(picture, 5, 5), errors.VOID)
    assert close(at(picture, 5, 25), errors.TRUE_POSITIVE)
    assert close(at(picture, 5, 38), errors.WRONG_PIXELS)
    assert close(at(picture, 5, 50), errors.MISSED)
    striped = {at(picture, 5, column) for column in range(62, 78)}
    assert any(close(c, errors.FALSE_POSITIVE) for c in striped)
    assert any(close(c, errors.MISSED) for c in striped)
    assert (picture[:, 39] == 255).all()  # the contour of the ground truth
    assert draw_errors(truth.image, truth, prediction, CATEGORIES).shape[1] > 80
    assert count_segments(prediction, truth, CATEGORIES.num_classes)[1].sum(0).tolist() == [1, 1, 2]


@pytest.mark.parametrize("size", [(20, 40), (160, 320), (7, 13)])
def test_the_picture_has_the_size_of_the_image(size: tuple[int, int]) -> None:
    truth, prediction = case()
    image = np.zeros((*size, 3), np.uint8)
    assert draw_errors(image, truth, prediction, CATEGORIES, key=False).shape == (*size, 3)


def test_nothing_predicted_and_nothing_true() -> None:
    truth, prediction = case()
    empty = PanopticMap(torch.zeros(40, 80, dtype=torch.int32), ())
    picture = draw_errors(truth.image, truth, empty, CATEGORIES, key=False)
    assert close(at(picture, 5, 25), errors.MISSED)
    void = Sample(truth.image, np.zeros_like(truth.segment_map), (), 1)
    picture = draw_errors(truth.image, void, prediction, CATEGORIES, key=False)
    assert close(at(picture, 5, 25), errors.VOID)  # on void nothing is false

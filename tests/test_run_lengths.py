"""Masks as runs, against pycocotools and against dense masks."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

from kmax.metrics.mask_ap import coco_rle
from kmax.run_lengths import RunLengths, encode, runs, shared_pixels

SIDE = st.integers(1, 9)


def planes(height: int, width: int, seed: int, kinds: int = 4) -> np.ndarray:
    """Two planes (2, H, W) of values 0 … kinds − 1, no pixel with one value twice."""
    rng = np.random.default_rng(seed)
    one = rng.integers(0, kinds, (height, width)).repeat(2, 0)[:height]
    return np.stack([one, (one + rng.integers(1, kinds, one.shape)) % kinds]).astype(np.int16)


@settings(max_examples=150, deadline=None)
@given(SIDE, SIDE, st.integers(0, 999))
def test_runs_are_what_pycocotools_makes_of_the_mask(height: int, width: int, seed: int) -> None:
    drawn = planes(height, width, seed)
    found = encode(drawn, [0, 2, 7])
    assert set(found) == {0, 2, 7}
    for value, mask in found.items():
        dense = (drawn == value).any(0)
        assert coco_rle(mask) == rle.encode(np.asfortranarray(dense, np.uint8))
        np.testing.assert_array_equal(mask.decode(), dense)
        assert mask.area == dense.sum()
        again = RunLengths.of(dense)
        np.testing.assert_array_equal(again.starts, mask.starts)


@settings(max_examples=100, deadline=None)
@given(SIDE, SIDE, st.integers(0, 999))
def test_shared_pixels_are_counted(height: int, width: int, seed: int) -> None:
    drawn, truth = planes(height, width, seed)[0] == 1, planes(height, width, seed + 1)[0]
    values, starts, lengths = runs(truth)
    assert lengths.sum() == truth.size
    expected = np.bincount(truth[drawn], minlength=5)
    np.testing.assert_array_equal(shared_pixels(RunLengths.of(drawn), starts, values, 5), expected)

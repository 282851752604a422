"""Boundary panoptic quality against its definition, segment by segment with boolean masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from kmax.metrics import PanopticQuality
from kmax.metrics.panoptic_quality import boundary_width, only_boundary
from kmax.structures import PanopticMap, Sample, Segment
from segmentation_cases import CATEGORIES, NUMBER, case

SQUARE = np.ones((3, 3), bool)


def boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """What `width` erosions by one pixel take away; beyond the image is nothing."""
    return mask & ~binary_erosion(mask, SQUARE, iterations=width, border_value=0)


def by_definition(prediction: PanopticMap, truth: Sample, ratio: float, num_classes: int) -> np.ndarray:
    """(K, 4): sum of min(IoU, boundary IoU), true positives, false positives, false negatives."""
    predicted_map, true_map = prediction.segment_map.numpy(), truth.segment_map
    width = boundary_width(true_map.shape, ratio)
    void = true_map == 0
    counts = np.zeros((num_classes, 4))
    matched = set()
    for true in (s for s in truth.segments if not s.crowd):
        hit = False
        for predicted in (s for s in prediction.segments if s.label == true.label):
            a, b = true_map == true.id, predicted_map == predicted.id
            ious = [
                (x & y).sum() / max((x | (y & ~void)).sum(), 1)
                for x, y in ((a, b), (boundary(a, width), boundary(b, width)))
            ]
            if min(ious) > 0.5:
                counts[true.label, :2] += min(ious), 1
                matched.add(predicted.id)
                hit = True
        counts[true.label, 3] += not hit
    for predicted in (s for s in prediction.segments if s.id not in matched):
        crowd = [s.id for s in truth.segments if s.crowd and s.label == predicted.label][-1:]
        counts[predicted.label, 2] += np.isin(true_map[predicted_map == predicted.id], [0, *crowd]).mean() <= 0.5
    return counts


@pytest.mark.parametrize("ratio", [0.005, 0.02, 0.06])
@pytest.mark.parametrize("seed", range(NUMBER))
def test_equals_the_definition(seed: int, ratio: float) -> None:
    one = case(seed)
    metric = PanopticQuality(CATEGORIES.is_thing, ratio)
    metric.update([one.panoptic], [one.truth])
    expected = by_definition(one.panoptic, one.truth, ratio, CATEGORIES.num_classes)
    np.testing.assert_allclose(metric.counts, expected, rtol=0, atol=1e-6)


@pytest.mark.long
def test_some_segments_match_and_some_fail_at_their_boundary() -> None:
    plain, strict = PanopticQuality(CATEGORIES.is_thing), PanopticQuality(CATEGORIES.is_thing, 0.02)
    for metric in (plain, strict):
        for seed in range(NUMBER):
            metric.update([case(seed).panoptic], [case(seed).truth])
    assert 10 < strict.counts[:, 1].sum() < plain.counts[:, 1].sum()
    assert 0 < strict.compute().all.pq < plain.compute().all.pq


@pytest.mark.parametrize("width", [1, 2, 5, 40])
def test_boundaries_are_what_erosion_takes_away(width: int) -> None:
    segment_map = case(3 * 8).truth.segment_map
    found = only_boundary(segment_map, width)
    for number in np.unique(segment_map):
        expected = boundary(segment_map == number, width) if number else segment_map == 0
        np.testing.assert_array_equal(found == number, expected)


def test_width_follows_the_diagonal() -> None:
    assert boundary_width((480, 640), 0.02) == 16
    assert boundary_width((1024, 2048), 0.005) == 11
    assert boundary_width((4, 4), 0.02) == 1


def test_a_shifted_square_by_hand() -> None:
    # 10 × 10 squares, one shifted by 2 columns: IoU 80/120; of their frames (36 pixels each, width 1) the upper and
    # lower edges share 8 columns each, the sides nothing: 16/56.
    true_map, predicted_map = np.zeros((2, 30, 30), np.int32)
    true_map[5:15, 5:15] = predicted_map[5:15, 7:17] = 1
    true_map[true_map == 0] = 2  # no void
    truth = Sample(np.zeros((30, 30, 3), np.uint8), true_map, (Segment(1, 0), Segment(2, 1)), 0)
    prediction = PanopticMap(torch.as_tensor(predicted_map), (Segment(1, 0),))
    for ratio, matches in ((None, 1), (0.02, 0)):
        metric = PanopticQuality([True, False], ratio)
        metric.update([prediction], [truth])
        assert metric.counts[0, 1] == matches
    with pytest.raises(ValueError, match=r"dilation ratio of boundaries is 2"):
        PanopticQuality([True], 2.0)

"""Mean IoU against plain sums over masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kmax.metrics import MeanIoU
from kmax.structures import Sample
from segmentation_cases import CATEGORIES, NUMBER, Case, case


def by_definition(cases: list[Case], label: int) -> float | None:
    both = either = 0
    for one in cases:
        ids = [s.id for s in one.truth.segments if s.label == label]
        labeled = np.isin(one.truth.segment_map, [s.id for s in one.truth.segments])
        true = np.isin(one.truth.segment_map, ids)
        predicted = (one.semantic.numpy() == label) & labeled
        both += (true & predicted).sum()
        either += (true | predicted).sum()
    return 100 * both / either if either else None


def measure(cases: list[Case]) -> MeanIoU:
    metric = MeanIoU(CATEGORIES.num_classes)
    metric.update([one.semantic for one in cases], [one.truth for one in cases])
    return metric


@pytest.mark.parametrize("seeds", [[0], [3], [5], list(range(NUMBER))], ids=str)
def test_equals_the_definition(seeds: list[int]) -> None:
    cases = [case(seed) for seed in seeds]
    result = measure(cases).compute()
    expected = [by_definition(cases, label) for label in range(CATEGORIES.num_classes)]
    assert [v is None for v in result.per_class] == [v is None for v in expected]
    known = [v for v in expected if v is not None]
    np.testing.assert_allclose([v for v in result.per_class if v is not None], known, rtol=1e-12)
    if known:
        assert result.mean == pytest.approx(np.mean(known))
        labels = np.concatenate([[one.semantic.numpy().ravel(), truth_labels(one.truth)] for one in cases], 1)
        right = labels[0] == labels[1]
        assert result.pixel_accuracy == pytest.approx(100 * right[labels[1] >= 0].mean())
    else:
        assert result.mean is None
        assert result.pixel_accuracy is None


def truth_labels(truth: Sample) -> np.ndarray:
    labels = np.full(truth.segment_map.shape, -1)
    for segment in truth.segments:
        labels[truth.segment_map == segment.id] = segment.label
    return labels.ravel()


def test_ranks_add_up() -> None:
    cases = [case(seed) for seed in range(NUMBER)]
    parts = [measure(cases[1::2]), measure(cases[::2])]
    both = MeanIoU(CATEGORIES.num_classes)
    reduce = both._reductions["confusion"]
    assert callable(reduce)
    both.confusion = reduce(torch.stack([part.confusion for part in parts]))
    both._update_count = 1
    assert both.compute() == measure(cases).compute()


def test_what_does_not_fit_is_named() -> None:
    truth = case(0).truth
    with pytest.raises(ValueError, match="has size"):
        MeanIoU(19).update([torch.zeros(2, 2).long()], [truth])
    with pytest.raises(ValueError, match="label outside 0 … 18"):
        MeanIoU(19).update([torch.full(truth.segment_map.shape, 40)], [truth])

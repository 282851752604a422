"""The built-in dataset: deterministic, varied, and consistent."""

from __future__ import annotations

import numpy as np
import pytest

from kmax.data import ShapesDataset


def test_an_image_depends_on_seed_and_index_alone() -> None:
    first, again, other = ShapesDataset(8, seed=3)[5], ShapesDataset(99, seed=3)[5], ShapesDataset(8, seed=4)[5]
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.segment_map, again.segment_map)
    assert first.segments == again.segments
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


@pytest.mark.long
def test_everything_occurs() -> None:
    dataset = ShapesDataset(150, seed=0)
    samples = [dataset[i] for i in range(len(dataset))]
    labels = {segment.label for sample in samples for segment in sample.segments}
    assert labels == set(range(dataset.categories.num_classes))
    assert len({sample.image.shape for sample in samples}) > 100
    assert any(segment.crowd for sample in samples for segment in sample.segments)
    assert any((sample.segment_map == 0).any() for sample in samples)
    things = [
        (sample.segment_map == segment.id).sum()
        for sample in samples
        for segment in sample.segments
        if dataset.categories.is_thing[segment.label] and not segment.crowd
    ]
    assert min(things) < 100
    assert max(things) > 1000


def test_map_and_table_agree() -> None:
    dataset = ShapesDataset(50, seed=1)
    for i in range(len(dataset)):
        sample = dataset[i]
        assert set(np.unique(sample.segment_map)) - {0} == {segment.id for segment in sample.segments}
        assert sample.segment_map.shape == sample.image.shape[:2]


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="min_size"):
        ShapesDataset(4, min_size=100, max_size=50)

"""Pasting conserves pixels: each comes from one of the two images, with its segment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmax.data import ShapesDataset
from kmax.data.copy_paste import choose_segments, paste, to_canvas
from kmax.data.transforms import drop_hidden

DATASET = ShapesDataset(30, seed=6)
IS_THING = DATASET.categories.is_thing


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 29), st.integers(0, 29), st.integers(0, 1000))
def test_pixels_are_conserved(first: int, second: int, seed: int) -> None:
    below, above = (to_canvas(DATASET[i], (145, 145)) for i in (first, second))
    chosen = choose_segments(above.sample, IS_THING, np.random.default_rng(seed))
    result = paste(below, above, chosen, IS_THING)
    mask = np.isin(above.sample.segment_map, [segment.id for segment in chosen])
    assert np.array_equal(result.sample.image[mask], above.sample.image[mask])
    assert np.array_equal(result.sample.image[~mask], below.sample.image[~mask])
    assert np.array_equal(result.sample.segment_map[~mask], below.sample.segment_map[~mask])
    assert np.array_equal(result.valid, below.valid | mask)
    label = {segment.id: segment.label for segment in result.sample.segments}
    for segment in chosen:
        here = np.unique(result.sample.segment_map[above.sample.segment_map == segment.id])
        assert [label[i] for i in here] == [segment.label]
    visible = {segment.id for segment in drop_hidden(result.sample).segments}
    assert visible == set(np.unique(result.sample.segment_map)) - {0} <= set(label)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 29), st.integers(0, 29))
def test_stuff_of_a_class_is_one_segment_and_things_stay_apart(first: int, second: int) -> None:
    below, above = (to_canvas(DATASET[i], (145, 145)) for i in (first, second))
    chosen = tuple(segment for segment in above.sample.segments if not segment.crowd)
    result = paste(below, above, chosen, IS_THING).sample
    stuff = [segment.label for segment in result.segments if not IS_THING[segment.label]]
    assert len(stuff) == len(set(stuff))
    things = [s for s in chosen if IS_THING[s.label]]
    assert sum(IS_THING[s.label] for s in result.segments) >= len(things)


def test_all_things_are_chosen_and_crowd_never() -> None:
    rng = np.random.default_rng(0)
    for i in range(30):
        sample = DATASET[i]
        chosen = choose_segments(sample, IS_THING, rng)
        assert {s.id for s in sample.segments if IS_THING[s.label] and not s.crowd} <= {s.id for s in chosen}
        assert not any(segment.crowd for segment in chosen)


def test_every_number_of_stuff_segments_is_chosen() -> None:
    sample = max((DATASET[i] for i in range(30)), key=lambda s: sum(not IS_THING[x.label] for x in s.segments))
    most = sum(not IS_THING[segment.label] for segment in sample.segments)
    counts = {
        sum(not IS_THING[s.label] for s in choose_segments(sample, IS_THING, np.random.default_rng(seed)))
        for seed in range(200)
    }
    assert counts == set(range(most + 1))

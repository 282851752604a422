"""Arithmetic on segment maps: bytes, wide ids and large maps give the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kmax.data.segment_maps import compact, lookup, positions, present
from kmax.structures import Sample, Segment

maps = arrays(np.int32, (7, 9), elements=st.sampled_from([0, 1, 2, 254, 255, 256, 65_536, 2**24 - 1, 2**24, 2**30]))
ids = st.lists(st.sampled_from([1, 2, 254, 256, 65_536, 2**24 - 1, 2**30]), unique=True)


@settings(max_examples=60, deadline=None)
@given(maps, ids)
def test_positions_follow_their_definition(segment_map: np.ndarray, ids: list[int]) -> None:
    expected = [[ids.index(value) + 1 if value in ids else 0 for value in row] for row in segment_map.tolist()]
    found = positions(segment_map, ids)
    assert found.dtype == np.uint8
    assert found.tolist() == expected
    assert present(found) == sorted({value for row in expected for value in row})


def test_more_than_255_segments_take_wider_maps() -> None:
    segment_map = np.arange(1, 301, dtype=np.int32).reshape(15, 20) * 70_000
    segments = tuple(Segment(70_000 * n, n % 5) for n in range(1, 301))
    small = compact(Sample(np.zeros((15, 20, 3), np.uint8), segment_map, segments, 0))
    assert small.segment_map.dtype == np.int32
    assert small.segment_map.ravel().tolist() == list(range(1, 301))
    assert present(small.segment_map) == [segment.id for segment in small.segments]
    table = np.arange(301, dtype=np.int32)[::-1]
    assert np.array_equal(lookup(table, small.segment_map), 300 - small.segment_map)


def test_a_map_of_bytes_takes_a_short_table() -> None:
    assert lookup(np.array([0, 9], np.uint8), np.array([[0, 1, 1]], np.uint8)).tolist() == [[0, 9, 9]]

"""`min_area`: what is too small becomes void, by any method, in maps and among instances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_postprocess import Case, case  # noqa: F401

from kmax.inference.postprocess import instances, panoptic
from kmax.predict import serving


@pytest.mark.long
@pytest.mark.parametrize("method", ["mask_wise", "pixel_wise"])
@pytest.mark.parametrize("min_area", [1, 40, 400, 10**9])
def test_small_segments_become_void_and_the_others_stay(
    case: Case,  # noqa: F811
    method: str,
    min_area: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kmax.inference.specks._PIECE", 1000)
    before = replace(case.thresholds, method=method, thing_threshold=0.1, stuff_threshold=0.1)
    everything = panoptic(case.class_logits, case.mask_logits, case.is_thing, before, case.sizes)
    chosen = replace(before, min_area=min_area)
    result = panoptic(case.class_logits, case.mask_logits, case.is_thing, chosen, case.sizes)
    full, cleaned = everything.segment_map.numpy(), result.segment_map.numpy()
    kept = [s for s in everything.segments if (full == s.id).sum() >= min_area]
    assert [(s.label, s.score) for s in result.segments] == [(s.label, s.score) for s in kept]
    assert [s.id for s in result.segments] == list(range(1, len(kept) + 1))
    expected = np.zeros_like(full)
    for number, segment in enumerate(kept, 1):
        expected[full == segment.id] = number
    np.testing.assert_array_equal(cleaned, expected)


@pytest.mark.parametrize("method", ["mask_wise", "pixel_wise"])
def test_serving_drops_the_same(case: Case, method: str) -> None:  # noqa: F811
    if case.sizes is not None:
        pytest.skip("resampling is compared elsewhere")
    chosen = replace(case.thresholds, method=method, thing_threshold=0.1, stuff_threshold=0.1, min_area=60)
    ours = panoptic(case.class_logits, case.mask_logits, case.is_thing, chosen)
    options = {name: getattr(chosen, name) for name in chosen.__dataclass_fields__}
    theirs, segments = serving.panoptic(case.class_logits.numpy(), case.mask_logits.numpy(), case.is_thing, **options)
    np.testing.assert_array_equal(ours.segment_map.numpy(), theirs)
    assert [s.id for s in ours.segments] == [s.id for s in segments]


def test_small_instances_are_not_listed(case: Case) -> None:  # noqa: F811
    everything = instances(case.class_logits, case.mask_logits, case.is_thing, case.thresholds, case.sizes)
    areas = [mask.area for mask in everything.runs]
    limit = sorted(areas)[len(areas) // 2]
    chosen = replace(case.thresholds, min_area=limit)
    result = instances(case.class_logits, case.mask_logits, case.is_thing, chosen, case.sizes)
    kept = [i for i, area in enumerate(areas) if area >= limit]
    assert len(kept) > 0
    assert [mask.area for mask in result.runs] == [areas[i] for i in kept]
    assert result.scores.tolist() == everything.scores[kept].tolist()
    assert result.labels.tolist() == everything.labels[kept].tolist()

"""Panoptic quality against the recorded official one, and what must not change it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kmax.metrics import PanopticQuality, PanopticQualityResult
from kmax.structures import PanopticMap, Sample, Segment

DATA = dict(np.load(Path(__file__).parents[1] / "golden" / "panoptic_quality.npz"))
LABEL = {int(category): label for label, category in enumerate(DATA["categories"])}
IS_THING = DATA["isthing"].astype(bool).tolist()
Pair = tuple[PanopticMap, Sample]


def recorded() -> list[Pair]:
    pairs = []
    for i in range(24):
        truth = Sample(
            image=np.zeros((*DATA[f"{i}/gt"].shape, 3), np.uint8),
            segment_map=DATA[f"{i}/gt"].astype(np.int32),
            segments=tuple(Segment(a, LABEL[b], bool(c)) for a, b, c, _ in DATA[f"{i}/gt_segments"].tolist()),
            image_id=i,
        )
        segments = tuple(Segment(a, LABEL[b]) for a, b in DATA[f"{i}/prediction_segments"].reshape(-1, 2).tolist())
        pairs.append((PanopticMap(torch.as_tensor(DATA[f"{i}/prediction"].astype(np.int32)), segments), truth))
    return pairs


def measure(pairs: list[Pair], is_thing: list[bool] = IS_THING) -> PanopticQuality:
    metric = PanopticQuality(is_thing)
    metric.update([p for p, _ in pairs], [t for _, t in pairs])
    return metric


def relabel(pair: Pair, seed: int) -> Pair:
    """Other ids, up to the largest that int32 holds, and another order of the predicted segments."""
    generator = np.random.default_rng(seed)
    prediction, truth = pair

    def renamed(segment_map: np.ndarray, segments: tuple[Segment, ...]) -> tuple[np.ndarray, tuple[Segment, ...]]:
        ids = generator.choice(np.arange(2**31 - 1 - 10**6, 2**31 - 1), len(segments), replace=False)
        result = np.zeros_like(segment_map)
        for segment, new in zip(segments, ids, strict=True):
            result[segment_map == segment.id] = new
        return result, tuple(Segment(int(i), s.label, s.crowd) for s, i in zip(segments, ids, strict=True))

    predicted_map, predicted = renamed(prediction.segment_map.numpy(), prediction.segments)
    true_map, true = renamed(truth.segment_map, truth.segments)
    shuffled = tuple(predicted[i] for i in generator.permutation(len(predicted)))
    return PanopticMap(torch.as_tensor(predicted_map), shuffled), Sample(truth.image, true_map, true, truth.image_id)


def test_equals_recorded() -> None:
    metric = measure(recorded())
    np.testing.assert_allclose(metric.counts, DATA["result/counts"], rtol=1e-12)
    result = metric.compute()
    for part in ("all", "things", "stuff"):
        quality = getattr(result, part)
        np.testing.assert_allclose([quality.pq, quality.sq, quality.rq], 100 * DATA[f"result/{part}"][:3], rtol=1e-12)
    ours = [[q.pq, q.sq, q.rq] for q in result.per_class]
    np.testing.assert_allclose(ours, 100 * DATA["result/per_class"], rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), start=st.integers(0, 18))
def test_ids_and_order_do_not_matter(seed: int, start: int) -> None:
    pairs = recorded()[start : start + 4]
    np.testing.assert_array_equal(measure([relabel(p, seed) for p in pairs]).counts, measure(pairs).counts)


@st.composite
def images(draw: st.DrawFn) -> Pair:
    """Small random maps with void, crowd and segments of four classes, on both sides."""
    height, width = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))

    def random_map(crowd: bool) -> tuple[np.ndarray, tuple[Segment, ...]]:
        coarse = generator.integers(0, draw(st.integers(1, 6)), (height, width))
        segment_map = np.repeat(np.repeat(coarse, 3, 0), 2, 1).astype(np.int32) * 70000
        return segment_map, tuple(
            Segment(int(i), int(generator.integers(4)), crowd and generator.random() < 0.2)
            for i in np.unique(segment_map)
            if i
        )

    predicted_map, predicted = random_map(False)
    true_map, true = random_map(True)
    truth = Sample(np.zeros((*true_map.shape, 3), np.uint8), true_map, true, 0)
    return PanopticMap(torch.as_tensor(predicted_map), predicted), truth


def official_counts(prediction: PanopticMap, truth: Sample) -> np.ndarray:
    """The definition, pair by pair with boolean masks (one crowd segment of a class at most)."""
    counts = np.zeros((4, 4))
    predicted_map, true_map = prediction.segment_map.numpy(), truth.segment_map
    matched = set()
    for true in (s for s in truth.segments if not s.crowd):
        hit = False
        for predicted in (s for s in prediction.segments if s.label == true.label):
            a, b = true_map == true.id, predicted_map == predicted.id
            iou = (a & b).sum() / ((a | b) & ~(b & (true_map == 0))).sum()
            if iou > 0.5:
                counts[true.label, :2] += iou, 1
                matched.add(predicted.id)
                hit = True
        counts[true.label, 3] += not hit
    for predicted in (s for s in prediction.segments if s.id not in matched):
        crowd = [s.id for s in truth.segments if s.crowd and s.label == predicted.label][-1:]
        counts[predicted.label, 2] += np.isin(true_map[predicted_map == predicted.id], [0, *crowd]).mean() <= 0.5
    return counts


@settings(max_examples=200, deadline=None)
@given(pair=images())
def test_equals_the_definition(pair: Pair) -> None:
    np.testing.assert_allclose(measure([pair], [True] * 4).counts, official_counts(*pair), rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(pair=images())
def test_the_truth_scores_100(pair: Pair) -> None:
    truth = pair[1]
    kept = tuple(s for s in truth.segments if not s.crowd)
    perfect = np.where(np.isin(truth.segment_map, [s.id for s in kept]), truth.segment_map, 0)
    result = measure([(PanopticMap(torch.as_tensor(perfect), kept), truth)], [True, False] * 2).compute()
    assert result.all.pq == pytest.approx(100 if kept else 0)
    assert (result.all.tp, result.all.fp, result.all.fn) == (len(kept), 0, 0)


@settings(max_examples=20, deadline=None)
@given(pairs=st.lists(images(), min_size=2, max_size=6), cut=st.integers(1, 5))
def test_ranks_add_up(pairs: list[Pair], cut: int) -> None:
    halves = [measure(part, [True] * 4) for part in (pairs[cut:], pairs[:cut])]
    both = PanopticQuality([True] * 4)
    for state in ("iou", "found"):
        reduce = both._reductions[state]
        assert callable(reduce)
        setattr(both, state, reduce(torch.stack([getattr(half, state) for half in halves])))
    np.testing.assert_array_equal(both.counts, measure(pairs, [True] * 4).counts)


def test_nothing_predicted_misses_everything() -> None:
    pairs = [(PanopticMap(torch.zeros_like(p.segment_map), ()), t) for p, t in recorded()]
    result = measure(pairs).compute()
    assert result.all.pq == 0
    assert result.all.tp == result.all.fp == 0
    assert result.all.fn == sum(not s.crowd for _, t in pairs for s in t.segments)


def test_no_image_is_zero_not_nan() -> None:
    assert measure([]).compute().all.pq == 0


def test_classes_that_never_occur_are_left_out() -> None:
    result = measure(recorded()[:1]).compute()
    seen = [q for q in result.per_class if q.tp + q.fp + q.fn]
    assert 0 < len(seen) < len(IS_THING)
    assert result.all.pq == pytest.approx(np.mean([q.pq for q in seen]))


def test_result_is_plain_data() -> None:
    result = measure(recorded()[:3]).compute()
    assert isinstance(result, PanopticQualityResult)
    assert json.loads(json.dumps(asdict(result)))["all"]["pq"] == result.all.pq


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (PanopticMap(torch.zeros(2, 2, dtype=torch.int32), ()), "has size"),
        (PanopticMap(torch.ones(68, 84, dtype=torch.int32), ()), "segment 1 in its map"),
        (PanopticMap(torch.zeros(68, 84, dtype=torch.int32), (Segment(5, 0),)), "segment 5 in its segments"),
        (PanopticMap(torch.ones(68, 84, dtype=torch.int32), (Segment(1, 20),)), "label outside 0 … 19"),
    ],
)
def test_odd_predictions_are_named(prediction: PanopticMap, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PanopticQuality(IS_THING).update([prediction], [recorded()[0][1]])

"""Identity over time: the tracker on drawn films."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kmax.config.options import TrackingOptions
from kmax.data.shapes_film import ShapesFilm
from kmax.geometry import Sizes
from kmax.metrics.identity import IdentitySwitches
from kmax.predict.predictor import RawPrediction
from kmax.predict.tracking import Sighting, Tracker, segment_features, with_ids
from kmax.results.coco import segments_info
from kmax.structures import PanopticMap, Prediction, Sample, Segment

OPTIONS = TrackingOptions()


def one_by_one(film: ShapesFilm, drop: float = 0.0) -> list[tuple[Sample, PanopticMap, list[Sighting]]]:
    """Frames with their true segments as a prediction without identities: shuffled, boxes a little off, the mean color
    as feature, and a share of the things not found."""
    rng, frames = np.random.default_rng(film.seed), []
    for index in range(len(film)):
        sample = film[index]
        order = [s for s in rng.permutation(np.array(sample.segments, dtype=object)) if rng.random() >= drop]
        found = [Segment(s.id, s.label) for s in order]
        bare = PanopticMap(
            torch.as_tensor(np.where(np.isin(sample.segment_map, [s.id for s in found]), sample.segment_map, 0)),
            tuple(found),
        )
        height, width = sample.segment_map.shape
        sightings = []
        for segment, entry in zip(found, segments_info(bare, film.categories), strict=True):
            x, y, w, h = entry["bbox"]
            box = np.array([x + w / 2, y + h / 2, w, h]) / [width, height, width, height] + rng.normal(0, 0.005, 4)
            color = sample.image[sample.segment_map == segment.id].mean(0)
            sightings.append(Sighting(segment.label, box, color / np.linalg.norm(color)))
        frames.append((sample, bare, sightings))
    return frames


def switches(films: int, drop: float = 0.0, options: TrackingOptions = OPTIONS) -> IdentitySwitches:
    count = IdentitySwitches(ShapesFilm().categories.is_thing)
    for seed in range(films):
        film = ShapesFilm(seed=seed)
        tracker = Tracker(options, film.categories.is_thing)
        count.new_film()
        for frame, (sample, bare, sightings) in enumerate(one_by_one(film, drop)):
            count.update(with_ids(bare, tracker.update(sightings, frame)), sample)
    return count


@pytest.mark.long
def test_identities_stay_through_crossings_and_absence() -> None:
    count = switches(6)
    assert count.found == count.visible > 6 * 60 * 5
    assert count.switches == 0


@pytest.mark.long
def test_identities_survive_frames_in_which_things_are_missed() -> None:
    count = switches(6, drop=0.2)
    assert 0.75 < count.found / count.visible < 0.85
    assert count.switches <= 2


def test_the_count_sees_a_tracker_that_knows_nothing() -> None:
    film = ShapesFilm(length=20)
    count = IdentitySwitches(film.categories.is_thing)
    for number, (sample, bare, sightings) in enumerate(one_by_one(film)):
        count.update(with_ids(bare, [100 * number + i for i in range(1, len(sightings) + 1)]), sample)
    assert count.switches == count.found - 6
    count.new_film()
    count.update(with_ids(bare, [len(bare.segments) - i for i in range(len(bare.segments))]), sample)
    assert count.switches == count.found - 6 - len([s for s in sample.segments if film.categories.is_thing[s.label]])


def sighting(x: float, label: int = 0, feature: tuple[float, float] = (1.0, 0.0)) -> Sighting:
    return Sighting(label, np.array([x, 0.5, 0.1, 0.1]), np.array(feature))


def test_rules_of_the_tracker() -> None:
    tracker = Tracker(TrackingOptions(forget_after=3), [True, True, False])
    assert tracker.update([sighting(0.2), sighting(0.5, label=2), sighting(0.8, 1)], 0) == [1, 2, 3]
    assert tracker.update([sighting(0.8, 1), sighting(0.25)], 1) == [3, 1]
    assert tracker.update([sighting(0.9, label=2), sighting(0.3)], 2) == [2, 1]  # stuff keeps its id, wherever it is
    assert tracker.update([sighting(0.8), sighting(0.35)], 3) == [4, 1]  # 3 was of another class
    assert tracker.update([sighting(0.85, 1)], 4) == [3]  # away for two frames
    assert tracker.update([sighting(0.35)], 9) == [5]  # forgotten
    assert tracker.update([], 10) == []


def test_a_hidden_thing_is_awaited_where_it_was_going() -> None:
    tracker = Tracker(TrackingOptions(distance=0.1), [True])
    for frame in range(4):
        assert tracker.update([sighting(0.1 + 0.05 * frame)], frame) == [1]
    assert tracker.update([sighting(0.1), sighting(0.5)], 8) == [2, 1]


def test_appearance_decides_between_things_in_one_place() -> None:
    tracker = Tracker(OPTIONS, [True])
    assert tracker.update([sighting(0.5), sighting(0.5, feature=(0.0, 1.0))], 0) == [1, 2]
    assert tracker.update([sighting(0.52, feature=(0.1, 0.99)), sighting(0.48)], 1) == [2, 1]


def test_a_resumed_tracker_equals_one_that_never_stopped() -> None:
    film = ShapesFilm(length=30, seed=3)
    frames = [sightings for _, _, sightings in one_by_one(film, drop=0.1)]
    whole, resumed = (Tracker(OPTIONS, film.categories.is_thing) for _ in range(2))
    ids = [whole.update(found, n) for n, found in enumerate(frames)]
    for number, (found, given) in enumerate(zip(frames[:13], ids, strict=False)):
        resumed.remember(found, given, number)
    assert [resumed.update(found, n) for n, found in enumerate(frames[13:], 13)] == ids[13:]


def test_features_are_means_over_the_pixels_of_segments() -> None:
    rng = np.random.default_rng(0)
    feature = torch.as_tensor(rng.normal(size=(5, 9, 9)), dtype=torch.float32)
    ids = torch.as_tensor(rng.integers(0, 4, (33, 21)), dtype=torch.int32)
    sizes = Sizes.fit((33, 33), (33, 21))
    raw = RawPrediction((Prediction(torch.zeros(2, 3), torch.zeros(2, 9, 9), feature),), sizes)
    content = raw.content[-1].pixel_feature.numpy()
    rows, columns = (np.arange(n) * cells // n for n, cells in zip((33, 21), content.shape[1:], strict=True))
    large = content[:, rows][:, :, columns]
    found = segment_features(raw, PanopticMap(ids, tuple(Segment(i, 0) for i in (3, 1, 2))))
    for row, i in zip(found, (3, 1, 2), strict=True):
        mean = large[:, ids.numpy() == i].mean(1)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=2e-3)
    assert segment_features(raw, PanopticMap(torch.zeros_like(ids), ())).shape == (0, 5)

"""Tracking through the frames of all sources, also where an earlier run has done some of them.

A video or a camera is a sequence of its own; so are the images of a folder, in the order of their names. Ids begin at 1
in each. The record of a frame keeps what a tracker learned from it, so that a later run goes on with the same ids.
"""

from __future__ import annotations

import base64
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kmax.categories import Categories
from kmax.config.options import TrackingOptions
from kmax.files import Json
from kmax.predict.predictor import Result
from kmax.predict.sources import Frame, Source
from kmax.predict.tracking import Tracker, listed_sightings, segment_features, sightings, with_ids
from kmax.results.records import Records

FEATURES = "features"
"""Key of a record: the features of its segments, in their order."""


@dataclass(frozen=True)
class _Place:
    """A frame in its sequence."""

    sequence: str
    number: int


class Sequences:
    """A tracker for each sequence of the input.

    Args:
        sources: in the order in which they are predicted.
        records: of the results that are there; their frames are learned from when their turn comes.
    """

    def __init__(
        self, options: TrackingOptions, categories: Categories, sources: Sequence[Source], records: Records
    ) -> None:
        self.categories, self.records = categories, records
        self._trackers = defaultdict[str, Tracker](lambda: Tracker(options, categories.is_thing))
        self._images = _image_places(sources)
        done = defaultdict[str, list[tuple[int, str]]](list)
        kinds = {source.key: source.kind for source in sources}
        for record in records:
            place = self._place(record["key"], record["origin"][1], kinds)
            if place is None:  # a camera that is no longer in the input
                continue
            done[place.sequence].append((place.number, record["key"]))
            for segment in record["segments"]:
                self._trackers[place.sequence].reserve(categories.label_of[segment["category_id"]], segment["id"])
        self._done = {sequence: deque(sorted(frames)) for sequence, frames in done.items()}

    def _place(self, key: str, source: str, kinds: Mapping[str, str]) -> _Place | None:
        kind = kinds.get(source)
        if kind is None:
            return None
        return self._images[source] if kind == "image" else _Place(source, int(key.rpartition("/")[2]))

    def follow(self, frame: Frame, result: Result) -> tuple[Result, Json]:
        """The result of a frame with identities as ids, and what its record keeps of them.

        Args:
            frame: later in its sequence than those before.
            result: with `panoptic` and `raw`, which the returned one leaves out.
        """
        assert frame.source is not None, "a frame of the input has a source"
        assert result.panoptic is not None, "tracking is of panoptic maps"
        assert result.raw is not None, "tracking compares features"
        place = self._place(frame.key, frame.source.key, {frame.source.key: frame.source.kind})
        assert place is not None, "its source is in the input"
        tracker = self._trackers[place.sequence]
        self._catch_up(tracker, place)
        features = segment_features(result.raw, result.panoptic)
        ids = tracker.update(sightings(result.panoptic, features, self.categories), place.number)
        panoptic = with_ids(result.panoptic, ids)
        return replace(result, panoptic=panoptic, raw=None), {FEATURES: [_encode(feature) for feature in features]}

    def _catch_up(self, tracker: Tracker, place: _Place) -> None:
        """Learn from the frames before that an earlier run has done."""
        done = self._done.get(place.sequence, deque())
        while done and done[0][0] < place.number:
            number, key = done.popleft()
            record = self.records[key]
            features = [_decode(text) for text in record[FEATURES]]
            found = listed_sightings(record["segments"], features, (record["height"], record["width"]), self.categories)
            tracker.remember(found, [segment["id"] for segment in record["segments"]], number)


def check_sequences(sources: Sequence[Source]) -> None:
    """Refuse an input without anything that follows on something else.

    Raises:
        ValueError: a single image.
    """
    if len(sources) == 1 and sources[0].kind == "image":
        raise ValueError(f"track=true needs a video, a camera or several images; {sources[0].name} is one image.")


def _image_places(sources: Sequence[Source]) -> dict[str, _Place]:
    """The place of each image by the key of its source: its folder, and how many images of that come before."""
    places: dict[str, _Place] = {}
    counts = defaultdict[str, int](int)
    for source in sources:
        if source.kind == "image":
            folder = f"folder {Path(source.path).parent}"
            places[source.key] = _Place(folder, counts[folder])
            counts[folder] += 1
    return places


def _encode(feature: np.ndarray) -> str:
    """A feature (D,) float16 as text."""
    return base64.b64encode(feature.astype("<f2").tobytes()).decode()


def _decode(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f2")

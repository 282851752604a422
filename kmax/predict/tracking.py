"""Identity over time: which segment of a frame is which of the frames before (the association of Video-kMaX, arXiv
2304.04694; it needs no training).

A thing is known by its class, by its cluster center (the mean pixel feature of its segment, an average over time) and
by its box. It may have been hidden, or outside the image, for some frames: then its box moves on as it last moved.

Letters: S segments of a frame, M tracks, D channels of the pixel feature.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from kmax.categories import Categories
from kmax.config.options import TrackingOptions
from kmax.files import Json
from kmax.predict.predictor import Predictor, RawPrediction
from kmax.results.coco import segments_info
from kmax.structures import PanopticMap, Segment


@dataclass(frozen=True)
class Sighting:
    """A segment in one frame: its `label`, its `box` (4,) as center x, y, width and height in fractions of the image,
    its `feature` (D,) of unit length."""

    label: int
    box: np.ndarray
    feature: np.ndarray


@dataclass
class _Track:
    """What is known of a thing: its last two boxes with their frames, oldest first, and the average of its features."""

    label: int
    feature: np.ndarray
    boxes: list[np.ndarray]
    frames: list[int]

    def box_at(self, frame: int) -> np.ndarray:
        """The box (4,) in a later frame, if it goes on moving as between its last two frames. Its center stays in the
        image: a thing outside is awaited at the border where it left."""
        moved: np.ndarray = self.boxes[-1].copy()
        if len(self.boxes) == 2:
            speed = (self.boxes[1][:2] - self.boxes[0][:2]) / (self.frames[1] - self.frames[0])
            moved[:2] += speed * (frame - self.frames[1])
        np.clip(moved[:2], 0, 1, out=moved[:2])
        return moved

    def add(self, sighting: Sighting, frame: int, memory: float) -> None:
        """Another frame in which the thing was seen."""
        mean = memory * self.feature + (1 - memory) * sighting.feature
        self.feature = mean / max(float(np.linalg.norm(mean)), 1e-6)
        self.boxes, self.frames = [self.boxes[-1], sighting.box], [self.frames[-1], frame]


class Tracker:
    """Gives the segments of one sequence of frames ids that stay: a thing keeps its id, and so does stuff of a class.

    Args:
        options: how similar a segment must be to a thing that is known.
        is_thing: for each class.
    """

    def __init__(self, options: TrackingOptions, is_thing: Sequence[bool]) -> None:
        self.options, self.is_thing = options, is_thing
        self._tracks: dict[int, _Track] = {}
        self._stuff: dict[int, int] = {}
        self._highest = 0

    def update(self, found: Sequence[Sighting], frame: int) -> list[int]:
        """The ids (S) of the segments of the next frame, all different, from 1 on in the order of appearance.

        Args:
            found: the segments; stuff at most once per class.
            frame: its number, higher than those before; a gap counts as frames in which nothing was seen.
        """
        oldest = frame - self.options.forget_after
        self._tracks = {i: track for i, track in self._tracks.items() if track.frames[-1] >= oldest}
        ids = self._recognized(found, frame)
        for index, sighting in enumerate(found):
            known = ids.get(index) if self.is_thing[sighting.label] else self._stuff.get(sighting.label)
            ids[index] = self._highest + 1 if known is None else known
            self.reserve(sighting.label, ids[index])
        chosen = [ids[index] for index in range(len(found))]
        self.remember(found, chosen, frame)
        return chosen

    def reserve(self, label: int, identity: int) -> None:
        """Note an id that is taken; stuff of a class has one only."""
        self._highest = max(self._highest, identity)
        if not self.is_thing[label]:
            self._stuff.setdefault(label, identity)

    def remember(self, found: Sequence[Sighting], ids: Sequence[int], frame: int) -> None:
        """Learn from a frame whose ids are known."""
        for sighting, identity in zip(found, ids, strict=True):
            self.reserve(sighting.label, identity)
            if not self.is_thing[sighting.label]:
                continue
            if identity in self._tracks:
                self._tracks[identity].add(sighting, frame, self.options.memory)
            else:
                self._tracks[identity] = _Track(sighting.label, sighting.feature, [sighting.box], [frame])

    def _recognized(self, found: Sequence[Sighting], frame: int) -> dict[int, int]:
        """The ids of known things, by the position of their segments: the assignment with the highest total score."""
        things = [i for i, sighting in enumerate(found) if self.is_thing[sighting.label]]
        names = list(self._tracks)
        if not things or not names:
            return {}
        score = np.array([[self._score(found[i], self._tracks[name], frame) for name in names] for i in things])
        rows, columns = linear_sum_assignment(score, maximize=True)  # score: (S, M)
        accepted = score[rows, columns] > self.options.threshold
        return {things[row]: names[column] for row, column in zip(rows[accepted], columns[accepted], strict=True)}

    def _score(self, seen: Sighting, track: _Track, frame: int) -> float:
        """cos(features) · exp(−distance of the boxes / scale); 0 for another class."""
        if seen.label != track.label:
            return 0.0
        distance = np.linalg.norm(seen.box - track.box_at(frame))
        return max(0.0, float(seen.feature @ track.feature)) * float(np.exp(-distance / self.options.distance))


def segment_features(raw: RawPrediction, panoptic: PanopticMap) -> np.ndarray:
    """The cluster center of every segment: the mean pixel feature of its pixels, to unit length, (S, D) float16.

    Args:
        raw: of one plain pass; its final pixel feature (D, h, w) is looked up at every pixel (H0, W0) of the map.

    Raises:
        ValueError: `raw` has no pixel feature.
    """
    if not raw.stages[-1].pixel_feature.numel():
        raise ValueError(
            "Tracking needs pixel features: use one plain pass (no flip, scales, pad) and no ONNX runtime."
        )
    feature = raw.content[-1].pixel_feature.float()
    channels, rows, columns = feature.shape
    ids = panoptic.segment_map.to(feature.device).long()
    height, width = ids.shape
    y = torch.arange(height, device=ids.device) * rows // height
    x = torch.arange(width, device=ids.device) * columns // width
    cell = y[:, None] * columns + x  # (H0, W0)
    count = max((segment.id for segment in panoptic.segments), default=0) + 1
    shared = torch.bincount((ids * (rows * columns) + cell).flatten(), minlength=count * rows * columns)
    sums = shared.reshape(count, -1).float() @ feature.reshape(channels, -1).T  # (ids, h·w) @ (h·w, D)
    chosen = sums[[segment.id for segment in panoptic.segments]]
    return torch.nn.functional.normalize(chosen, dim=1).half().cpu().numpy()


def sightings(panoptic: PanopticMap, features: np.ndarray, categories: Categories) -> list[Sighting]:
    """What a tracker sees of the segments (S) of a map and their features (S, D)."""
    height, width = panoptic.segment_map.shape
    return listed_sightings(segments_info(panoptic, categories), features, (height, width), categories)


def listed_sightings(
    segments: Sequence[Json], features: Iterable[np.ndarray], size: tuple[int, int], categories: Categories
) -> list[Sighting]:
    """The same for segments as COCO's panoptic JSON lists them, in an image of `size` (H, W)."""
    found = []
    for segment, feature in zip(segments, features, strict=True):
        x, y, width, height = segment["bbox"]
        box = np.array([x + width / 2, y + height / 2, width, height]) / [size[1], size[0], size[1], size[0]]
        found.append(Sighting(categories.label_of[segment["category_id"]], box, feature.astype(np.float32)))
    return found


def track(
    predictor: Predictor, images: Iterable[object], options: TrackingOptions | None = None
) -> Iterator[PanopticMap]:
    """The panoptic maps of a sequence of images, with ids that stay.

    Args:
        images: as a `Predictor` takes them, in order.
        options: how things are recognized; default `TrackingOptions()`.

    Raises:
        ValueError: a predictor with test-time options or with runtime=onnx, which have no pixel feature.
    """
    tracker = Tracker(options or TrackingOptions(), predictor.categories.is_thing)
    for number, image in enumerate(images):
        [raw] = predictor.raw([image])
        panoptic = predictor.finish(raw).panoptic
        assert panoptic is not None, "panoptic is the default"
        found = sightings(panoptic, segment_features(raw, panoptic), predictor.categories)
        yield with_ids(panoptic, tracker.update(found, number))


def with_ids(panoptic: PanopticMap, ids: Sequence[int]) -> PanopticMap:
    """The map with other ids for its segments (S), in their order."""
    table = torch.zeros(max((s.id for s in panoptic.segments), default=0) + 1, dtype=torch.int32)
    for segment, identity in zip(panoptic.segments, ids, strict=True):
        table[segment.id] = identity
    segments = tuple(
        Segment(identity, s.label, s.crowd, s.score) for s, identity in zip(panoptic.segments, ids, strict=True)
    )
    return PanopticMap(table[panoptic.segment_map.long()], segments)

"""Generated images with everything that evaluations disagree about: crowd, void, ties, large ids, empty sides."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from kmax.categories import load_categories
from kmax.structures import Instances, PanopticMap, Sample, Segment

CATEGORIES = load_categories("cityscapes")
THINGS = [label for label, thing in enumerate(CATEGORIES.is_thing) if thing][:4]
STUFF = [label for label, thing in enumerate(CATEGORIES.is_thing) if not thing][:4]
KINDS = ("plain", "crowd", "void", "no truth", "no prediction", "other classes", "ties", "small")
NUMBER = 3 * len(KINDS)


@dataclass(frozen=True)
class Case:
    """One image with its ground truth and a prediction of each kind."""

    truth: Sample
    panoptic: PanopticMap
    semantic: torch.Tensor
    instances: Instances


def case(seed: int) -> Case:
    """The image number `seed`; every kind comes with ids below 256, above 255 and above 65535."""
    rng = np.random.default_rng(seed)
    kind, ids = KINDS[seed % len(KINDS)], (0, 1 << 8, 1 << 16)[seed // len(KINDS) % 3]
    height, width = (int(n) for n in rng.integers(48, 90, 2))
    regions = _cells(rng, height, width, 40 if kind == "small" else 12)
    labels = rng.choice(THINGS + STUFF, regions.max() + 1)
    truth = _truth(rng, kind, regions, labels, ids, seed)
    moved = np.roll(regions, rng.integers(-1, 2, 2) * rng.integers(1, 4), (0, 1))
    moved = np.where(
        rng.random(moved.shape) < rng.choice([0, 0.02]), rng.integers(0, regions.max() + 1, moved.shape), moved
    )
    guess = np.where(rng.random(len(labels)) < 0.8, labels, rng.choice(THINGS + STUFF, len(labels)))
    if kind == "other classes":
        guess = (labels + 9) % CATEGORIES.num_classes
    panoptic = _panoptic(rng, moved, guess, ids)
    if kind == "no prediction":
        panoptic = PanopticMap(torch.zeros_like(panoptic.segment_map), ())
    instances = _instances(rng, kind, regions, guess)
    return Case(truth, panoptic, torch.as_tensor(guess[moved].astype(np.int64)), instances)


def relabeled(one: Case, seed: int) -> Case:
    """The same image with other ids, and the tables of segments in another order."""
    rng = np.random.default_rng(seed)
    truth_map, segments = _renamed(rng, one.truth.segment_map, one.truth.segments)
    # Of several crowd segments of a class only the last counts; here is one at most, so the order is free.
    predicted_map, predicted = _renamed(rng, one.panoptic.segment_map.numpy(), one.panoptic.segments)
    truth = replace(one.truth, segment_map=truth_map, segments=segments)
    return replace(one, truth=truth, panoptic=PanopticMap(torch.as_tensor(predicted_map), predicted))


def perfect(one: Case) -> Case:
    """The same image, predicted as it is annotated; crowd is left out, as nobody has to find it."""
    truth = one.truth
    kept = tuple(segment for segment in truth.segments if not segment.crowd)
    segment_map = np.where(np.isin(truth.segment_map, [s.id for s in kept]), truth.segment_map, 0)
    things = [s for s in kept if CATEGORIES.is_thing[s.label]]
    masks = np.array([truth.segment_map == s.id for s in things]).reshape(-1, *truth.segment_map.shape)
    semantic = np.zeros(truth.segment_map.shape, np.int64)
    for segment in truth.segments:
        semantic[truth.segment_map == segment.id] = segment.label
    return Case(
        truth,
        PanopticMap(torch.as_tensor(segment_map), kept),
        torch.as_tensor(semantic),
        Instances.from_masks(
            torch.as_tensor(masks), torch.tensor([s.label for s in things]).long(), torch.ones(len(things))
        ),
    )


def _cells(rng: np.random.Generator, height: int, width: int, count: int) -> np.ndarray:
    """(H, W): the nearest of some random points."""
    y, x = np.mgrid[:height, :width]
    rows, columns = rng.uniform(0, height, count), rng.uniform(0, width, count)
    return np.hypot(y[..., None] - rows, x[..., None] - columns).argmin(-1)


def _new_ids(rng: np.random.Generator, count: int, least: int) -> np.ndarray:
    most = 256 if least == 0 else 1 << 24
    return rng.choice(np.arange(max(1, least), min(most, max(1, least) + 5000)), count, replace=False)


def _truth(rng: np.random.Generator, kind: str, regions: np.ndarray, labels: np.ndarray, ids: int, seed: int) -> Sample:
    void = rng.random(len(labels)) < {"void": 0.6, "no truth": 1.0}.get(kind, 0.15)
    new = _new_ids(rng, len(labels), ids)
    new[void] = 0
    stuff: dict[int, int] = {}
    crowd: dict[int, int] = {}
    segments: dict[int, Segment] = {}
    for region, label in enumerate(labels.tolist()):
        if void[region] or not (regions == region).any():
            new[region] = 0
            continue
        merged = None
        if label in STUFF:
            merged = stuff.setdefault(label, int(new[region]))  # one segment per class, as in all datasets
        elif rng.random() < (0.6 if kind == "crowd" else 0.15):
            merged = crowd.setdefault(label, int(new[region]))
        new[region] = new[region] if merged is None else merged
        segments[int(new[region])] = Segment(int(new[region]), label, label in THINGS and merged is not None)
    image = np.zeros((*regions.shape, 3), np.uint8)
    return Sample(image, new[regions].astype(np.int32), tuple(segments.values()), seed)


def _panoptic(rng: np.random.Generator, regions: np.ndarray, labels: np.ndarray, ids: int) -> PanopticMap:
    new = _new_ids(rng, len(labels), ids)
    new[rng.random(len(labels)) < 0.1] = 0
    stuff: dict[int, int] = {}
    segments = {}
    for region, label in enumerate(labels.tolist()):
        if not CATEGORIES.is_thing[label] and new[region]:
            new[region] = stuff.setdefault(label, int(new[region]))
        if new[region] and (regions == region).any():
            segments[int(new[region])] = Segment(int(new[region]), label)
    return PanopticMap(torch.as_tensor(new[regions].astype(np.int32)), tuple(segments.values()))


def _instances(rng: np.random.Generator, kind: str, regions: np.ndarray, labels: np.ndarray) -> Instances:
    """Shifted regions, some twice, which may overlap; an empty mask; by descending score."""
    masks, found = [np.zeros(regions.shape, bool)], [THINGS[0]]
    for region in np.flatnonzero(np.isin(labels, np.flatnonzero(CATEGORIES.is_thing))):
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            masks.append(np.roll(regions == region, rng.integers(-1, 2, 2) * rng.integers(0, 3), (0, 1)))
            found.append(int(labels[region]))
    count = 0 if kind == "no prediction" else len(masks)
    scores = np.round(rng.random(count), 0 if kind == "ties" else 1)
    order = np.argsort(-scores, kind="stable")
    return Instances.from_masks(
        torch.as_tensor(np.array(masks)[:count][order]),
        torch.as_tensor(np.array(found, dtype=np.int64)[:count][order]),
        torch.as_tensor(scores[order].astype(np.float32)),
    )


def _renamed(
    rng: np.random.Generator, segment_map: np.ndarray, segments: tuple[Segment, ...]
) -> tuple[np.ndarray, tuple[Segment, ...]]:
    new = rng.choice(np.arange(2**31 - 10**6, 2**31 - 1), len(segments), replace=False).tolist()
    result = np.zeros_like(segment_map)
    for segment, number in zip(segments, new, strict=True):
        result[segment_map == segment.id] = number
    renamed = [replace(segment, id=number) for segment, number in zip(segments, new, strict=True)]
    return result, tuple(renamed[i] for i in rng.permutation(len(renamed)))

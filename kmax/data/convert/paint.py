"""From the annotation of one image to disjoint segments: the rules for overlaps, stuff and unlabeled pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from kmax.categories import Categories
from kmax.data.convert import shapes
from kmax.data.convert.source import VOID_LABEL, Annotation, LabelMap, Region, Shapes, Size

HIDDEN = "covered by other regions, or smaller than a pixel"
SMALL = "smaller than --min-area"
UNKNOWN = "of a class that is left out"
EIGHT_NEIGHBORS = np.ones((3, 3), bool)
VOID, FREE = -1, 0  # values of a map while it is painted: void for good, and not painted yet


@dataclass(frozen=True)
class Rules:
    """How annotations become segments of `categories`.

    `id_of` gives the category of a source's class; a class without one is left out, and one in `ignored` makes its
    pixels void. `rest` is the category of pixels without annotation, None: void. Things of a label map in `split` are
    cut into connected components.
    """

    categories: Categories
    id_of: Mapping[str, int]
    ignored: frozenset[str] = frozenset()
    rest: int | None = None
    is_ordered: bool = False
    split: bool = False
    min_area: int = 1


@dataclass(frozen=True)
class Drawing:
    """`segment_map` (H, W) int32, 0 = void; category id and crowd by segment; what was left out, by reason."""

    segment_map: np.ndarray
    segments: Mapping[int, tuple[int, bool]]
    left_out: Mapping[str, int] = field(default_factory=dict)


def draw(annotation: Annotation, size: Size, rules: Rules) -> Drawing:
    """The segments of one image, numbered 1 … M."""
    left_out = Counter(annotation.left_out)
    if isinstance(annotation, Shapes):
        painted, segments = _paint(annotation, size, rules, left_out)
    else:
        painted, segments = _relabel(annotation, rules, left_out)
    painted, segments = _without_small(painted, segments, rules.min_area, left_out)
    if rules.rest is not None:
        painted, segments = _fill(painted, segments, rules.rest)
    painted[painted == VOID] = FREE
    return _numbered(painted, segments, left_out)


def _paint(
    annotation: Shapes, size: Size, rules: Rules, left_out: Counter[str]
) -> tuple[np.ndarray, dict[int, tuple[int, bool]]]:
    """Paint regions from the lowest to the highest: crowd, things and stuff, ignored ones."""
    painted = np.zeros(size, np.int32)
    number: dict[tuple[object, ...], int] = {}
    segments: dict[int, tuple[int, bool]] = {}
    for region in _from_below(annotation.regions, rules):
        if region.label in rules.ignored or region.label == VOID_LABEL:
            painted[shapes.decode(region.rle)] = VOID
        elif region.label not in rules.id_of:
            left_out[f"{UNKNOWN} ({region.label})"] += 1
        else:
            category = rules.id_of[region.label]
            segment = number.setdefault(_identity(region, category, rules), len(number) + 1)
            segments[segment] = (category, region.crowd and _is_thing(category, rules))
            painted[shapes.decode(region.rle)] = segment
    hidden = len(segments) - len(np.unique(painted[painted > 0]))
    if hidden:
        left_out[HIDDEN] += hidden
    return painted, segments


def _is_thing(category: int, rules: Rules) -> bool:
    return rules.categories.is_thing[rules.categories.label_of[category]]


def _identity(region: Region, category: int, rules: Rules) -> tuple[object, ...]:
    """Key of the segment that a region belongs to: one per stuff class of an image, or per group of one class."""
    if not _is_thing(category, rules):
        return (category,)
    return (category, region.group, region.crowd) if region.group is not None else (category, id(region))


def _from_below(regions: tuple[Region, ...], rules: Rules) -> list[Region]:
    """Regions in the order in which they are painted; without an order of the format, smaller segments lie on top."""
    areas: Counter[object] = Counter()
    for region in regions:
        areas[_part_of(region)] += shapes.area(region.rle)

    def height(region: Region) -> tuple[int, float]:
        level = 2 if region.label in rules.ignored or region.label == VOID_LABEL else 0 if region.crowd else 1
        return level, region.order if rules.is_ordered else -areas[_part_of(region)]

    return sorted(regions, key=height)  # stable: later ones lie on top of equals


def _part_of(region: Region) -> object:
    return (region.label, region.group) if region.group is not None else id(region)


def _relabel(
    annotation: LabelMap, rules: Rules, left_out: Counter[str]
) -> tuple[np.ndarray, dict[int, tuple[int, bool]]]:
    """Values of a label map as segments; stuff classes merge, and things are split if the rules say so."""
    values, position = np.unique(annotation.values, return_inverse=True)
    table = np.zeros(len(values), np.int32)
    number: dict[tuple[object, ...], int] = {}
    segments: dict[int, tuple[int, bool]] = {}
    for index, value in enumerate(values.tolist()):
        tag = annotation.tags.get(value)
        if tag is None:
            continue
        if tag.label == VOID_LABEL or tag.label in rules.ignored:
            table[index] = VOID
        elif tag.label not in rules.id_of:
            left_out[f"{UNKNOWN} ({tag.label})"] += 1
        else:
            category = rules.id_of[tag.label]
            is_thing = _is_thing(category, rules)
            key = (category, value) if is_thing else (category,)
            table[index] = number.setdefault(key, len(number) + 1)
            segments[int(table[index])] = (category, tag.crowd and is_thing)
    painted = table[position].reshape(annotation.values.shape)
    return _components(painted, segments, rules) if rules.split else (painted, segments)


def _components(
    painted: np.ndarray, segments: dict[int, tuple[int, bool]], rules: Rules
) -> tuple[np.ndarray, dict[int, tuple[int, bool]]]:
    """Every thing as its connected components of eight neighbors."""
    result, all_segments = painted.copy(), dict(segments)
    for segment, (category, crowd) in segments.items():
        if not _is_thing(category, rules):
            continue
        parts, count = ndimage.label(painted == segment, EIGHT_NEIGHBORS)
        first = max(all_segments)
        result[parts > 0] = parts[parts > 0] + first
        del all_segments[segment]
        all_segments.update({first + n: (category, crowd) for n in range(1, count + 1)})
    return result, all_segments


def _without_small(
    painted: np.ndarray, segments: dict[int, tuple[int, bool]], min_area: int, left_out: Counter[str]
) -> tuple[np.ndarray, dict[int, tuple[int, bool]]]:
    """Segments below the least area become void."""
    if min_area <= 1:
        return painted, segments
    ids, areas = np.unique(painted[painted > 0], return_counts=True)
    small = ids[areas < min_area]
    if len(small):
        left_out[SMALL] += len(small)
        painted = np.where(np.isin(painted, small), VOID, painted).astype(np.int32)
    return painted, segments


def _fill(
    painted: np.ndarray, segments: dict[int, tuple[int, bool]], category: int
) -> tuple[np.ndarray, dict[int, tuple[int, bool]]]:
    """Free pixels as a segment of the background's class, or as part of the one that is there."""
    same = [segment for segment, (other, _) in segments.items() if other == category]
    segment = same[0] if same else max(segments, default=0) + 1
    return np.where(painted == FREE, segment, painted).astype(np.int32), {**segments, segment: (category, False)}


def _numbered(painted: np.ndarray, segments: Mapping[int, tuple[int, bool]], left_out: Mapping[str, int]) -> Drawing:
    """Segments that have pixels, numbered 1 … M."""
    ids, position = np.unique(painted, return_inverse=True)
    kept = [segment for segment in ids.tolist() if segment]
    new = {segment: n for n, segment in enumerate(kept, 1)}
    table = np.array([new.get(segment, 0) for segment in ids.tolist()], np.int32)
    segment_map = table[position].reshape(painted.shape)
    return Drawing(segment_map, {new[segment]: segments[segment] for segment in kept}, dict(left_out))

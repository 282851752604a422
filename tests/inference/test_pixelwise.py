"""Pixel-wise post-processing: the recorded maps to the pixel, and plain code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import golden_tools
from kmax.geometry import Sizes
from kmax.inference.options import Thresholds
from kmax.inference.postprocess import panoptic, semantic
from kmax.predict import serving

CASES = sorted(f"max/{path.stem}" for path in (golden_tools.GOLDEN / "max").glob("postprocess_max_*.npz"))


def read(case: str) -> tuple[Any, torch.Tensor, torch.Tensor, list[bool], Thresholds, Sizes]:
    fixture = golden_tools.load(case)
    classes, masks = (torch.from_numpy(fixture[f"{kind}_logits"]) for kind in ("class", "mask"))
    things = set(fixture["things"].tolist())
    thresholds = Thresholds(
        method="pixel_wise",
        thing_threshold=float(fixture["threshold/class"]),
        stuff_threshold=float(fixture["threshold/class"]),
        pixel_threshold=float(fixture["threshold/pixel"]),
        thing_area=int(fixture["threshold/thing_area"]),
        stuff_area=int(fixture["threshold/stuff_area"]),
    )
    sizes = Sizes(*(tuple(fixture[f"{name}_size"].tolist()) for name in ("padded", "image", "original")))
    return fixture, classes, masks, [k in things for k in range(classes.shape[1] - 1)], thresholds, sizes


def check(fixture: Any, where: str, segment_map: np.ndarray, segments: Any, is_thing: list[bool]) -> None:
    """The categories are the recorded ones, and things the same partition: one segment for one slot."""
    labels = {0: -1, **{segment.id: segment.label for segment in segments}}
    np.testing.assert_array_equal(np.vectorize(labels.get)(segment_map), fixture[f"{where}/category"])
    slots = fixture[f"{where}/slot"]
    thing = np.vectorize(lambda n: n > 0 and is_thing[labels[n]])(segment_map)
    np.testing.assert_array_equal(thing, slots >= 0)
    pairs = set(zip(segment_map[thing].tolist(), slots[thing].tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert {segment.id for segment in segments} == set(np.unique(segment_map)) - {0}


@pytest.mark.parametrize("case", CASES)
def test_maps_are_the_recorded_ones(case: str) -> None:
    fixture, classes, masks, is_thing, thresholds, sizes = read(case)
    padded = Sizes(sizes.padded, sizes.padded, sizes.padded)
    for where, way in (("padded", padded), ("original", sizes)):
        result = panoptic(classes, masks, is_thing, thresholds, way)
        check(fixture, where, result.segment_map.numpy(), result.segments, is_thing)
        np.testing.assert_array_equal(semantic(classes, masks, way, thresholds).numpy(), fixture[f"{where}/semantic"])
        scores = [segment.score for segment in result.segments]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("case", CASES)
def test_serving_without_torch_gives_the_recorded_maps(case: str) -> None:
    fixture, classes, masks, is_thing, thresholds, sizes = read(case)
    options = {name: getattr(thresholds, name) for name in Thresholds.__dataclass_fields__}
    segment_map, segments = serving.panoptic(
        classes.numpy(), masks.numpy(), is_thing, sizes.padded, sizes.original, **options
    )
    assert serving.content_size(sizes.original, sizes.padded) == sizes.content
    check(fixture, "original", segment_map, segments, is_thing)


def test_without_sizes_the_cells_are_the_pixels() -> None:
    """Two detected slots, one that is not, and one pixel where the detected ones are undecided."""
    classes = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 0, 9]])  # thing, stuff, void
    masks = torch.full((3, 1, 4), -9.0)
    masks[0, 0, 0], masks[1, 0, 1], masks[2, 0, 2] = 9, 9, 9
    masks[:, 0, 3] = torch.tensor([0.1, 0.0, 0.05])
    thresholds = Thresholds(method="pixel_wise", stuff_threshold=0.7, pixel_threshold=0.6)
    result = panoptic(classes, masks, [True, False], thresholds)
    labels = {0: -1, **{segment.id: segment.label for segment in result.segments}}
    assert [labels[n] for n in result.segment_map[0].tolist()] == [0, 1, -1, -1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"thing_area": 100}, "thing_area=100 belongs to method=pixel_wise"),
        ({"stuff_area": 100, "method": "mask_wise"}, "choose that method, or set it to 0"),
        ({"method": "pixels"}, "must be one of mask_wise, pixel_wise"),
        ({"method": "pixel_wise", "thing_area": -1}, "at least 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Thresholds(**options)

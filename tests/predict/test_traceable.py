"""The traceable form of fitting and post-processing against the definitions, over many random cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from kmax.geometry import Sizes
from kmax.images import pad, resize_and_pad
from kmax.inference import postprocess
from kmax.inference.options import Thresholds
from kmax.predict import traceable

THINGS = [True, True, False, True, False]
ORIGINALS = [(40, 77), (129, 129), (300, 31), (2, 500), (97, 96), (64, 65), (480, 640)]


@pytest.mark.parametrize("size", [(129, 129), (64, 96), (97, 65)])
@pytest.mark.parametrize("original", ORIGINALS)
def test_images_are_fitted_as_pillow_does_it(original: tuple[int, int], size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*original, 3), dtype=np.uint8)
    tensor = torch.as_tensor(image)
    content = traceable.content_size(traceable.lengths(tensor), size)
    assert tuple(content.tolist()) == Sizes.fit(size, original).content
    found = traceable.resize_and_pad(tensor, content, size).numpy()
    height, width = content.tolist()
    wide = Image.fromarray(image).resize((width, original[0]), Image.Resampling.BILINEAR)
    expected, _ = pad(np.asarray(wide.resize((width, height), Image.Resampling.BILINEAR)), size)
    np.testing.assert_array_equal(found, expected)
    at_once, _ = resize_and_pad(image, size)
    assert np.abs(found.astype(int) - at_once).max() <= 1, "Pillow 13 begins with the rows of some images"


def logits(seed: int, queries: int = 12, size: tuple[int, int] = (33, 25)) -> tuple[torch.Tensor, torch.Tensor]:
    """Class logits (N, K+1), decided and not, and smooth mask logits (N, h, w) with ties of classes."""
    torch.manual_seed(seed)
    coarse = torch.randn(1, queries, 4 + seed % 4, 5) * 6
    masks = torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0]
    return torch.randn(queries, len(THINGS) + 1) * (1 + seed % 5), masks


SETS = [
    Thresholds(1, 1, 0.3, 0.3, 0.3, 0.4),
    Thresholds(0.5, 2, 0.5, 0.2, 0.8, 0.2),
    Thresholds(1, 1, 0.0, 0.0, 0.0, 0.0),
    Thresholds(1, 0, 0.7, 0.5, 0.8, 0.7),
    Thresholds(1, 1, 0.3, 0.3, 0.8, 0.4, "pixel_wise"),
    Thresholds(1, 1, 0.2, 0.4, 0.8, 0.6, "pixel_wise", 300, 900),
    Thresholds(1, 1, 0.2, 0.2, 0.3, 0.3, min_area=60),
    Thresholds(1, 1, 0.2, 0.2, 0.8, 0.4, "pixel_wise", 10, 10, min_area=150),
]


@pytest.mark.long
@pytest.mark.parametrize("thresholds", SETS)
@pytest.mark.parametrize("original", [*ORIGINALS[:4], (130, 200)])
def test_maps_equal_those_of_the_definition(original: tuple[int, int], thresholds: Thresholds) -> None:
    found = 0
    for seed in range(8):
        size = (129, 97) if seed % 2 else (128, 96)
        classes, masks = logits(seed, size=(33, 25) if seed % 2 else (32, 24))
        sizes = Sizes.fit(size, original)
        expected = postprocess.panoptic(classes, masks, THINGS, thresholds, sizes)
        image, content = torch.zeros(*original, 3, dtype=torch.uint8), torch.tensor(sizes.content)
        segment_map, ids, labels, scores = traceable.panoptic(classes, masks, THINGS, thresholds, size, content, image)
        differing = int((segment_map != expected.segment_map).sum())
        assert differing <= 1e-4 * segment_map.numel(), "rounding moves pixels at a threshold alone"
        assert segment_map.dtype == torch.int32
        assert list(zip(ids.tolist(), labels.tolist(), strict=True)) == [(s.id, s.label) for s in expected.segments]
        np.testing.assert_allclose(scores, [s.score for s in expected.segments], rtol=1e-4)
        found += len(expected.segments)
    assert found > 3

"""Post-processing for serving, NumPy alone, against the same recorded numbers and definition as the torch one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_postprocess import SIZES, Case, case, smooth  # noqa: F401

from conftest import run_python
from kmax.geometry import Sizes
from kmax.images import resize_and_pad
from kmax.inference import postprocess
from kmax.inference.options import Thresholds
from kmax.predict import serving


def numpy_panoptic(classes: torch.Tensor, masks: torch.Tensor, things: list[bool], t: Thresholds, sizes: Sizes | None):
    where = (sizes.padded, sizes.original) if sizes else (None, None)
    return serving.panoptic(classes.numpy(), masks.numpy(), things, *where, **vars(t))


def test_panoptic_equals_recorded(case: Case) -> None:  # noqa: F811
    segment_map, segments = numpy_panoptic(
        case.class_logits, case.mask_logits, case.is_thing, case.thresholds, case.sizes
    )
    np.testing.assert_array_equal(segment_map, case.data["panoptic/map"])
    assert [s.id for s in segments] == case.data["panoptic/ids"].tolist()
    assert [s.label for s in segments] == case.data["panoptic/categories"].tolist()
    assert segment_map.dtype == np.int32


@pytest.mark.parametrize("pixel_threshold", [0.0, 0.2, 0.4, 0.7])
@pytest.mark.parametrize("sizes", SIZES)
def test_panoptic_equals_the_torch_one(
    pixel_threshold: float, sizes: Sizes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_STRIP_ELEMENTS", 2000)
    is_thing = [True, True, True, False, False]
    for seed in range(3):
        thresholds = Thresholds(1, 1, 0.4, 0.4, 0.3, pixel_threshold)
        classes, masks = (x.float() for x in smooth(12, 49, 49, seed))
        expected = postprocess.panoptic(classes, masks, is_thing, thresholds, sizes)
        segment_map, segments = numpy_panoptic(classes, masks, is_thing, thresholds, sizes)
        np.testing.assert_array_equal(segment_map, expected.segment_map.numpy())
        assert [(s.id, s.label) for s in segments] == [(s.id, s.label) for s in expected.segments]
        np.testing.assert_allclose([s.score for s in segments], [s.score for s in expected.segments], rtol=1e-5)


@pytest.mark.parametrize("original", [(40, 77), (129, 129), (300, 31), (1, 500)])
def test_inputs_equal_those_of_evaluation(original: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*original, 3), dtype=np.uint8)
    images, content = serving.prepare([picture, picture], (129, 129))
    expected, valid = resize_and_pad(picture, (129, 129))
    np.testing.assert_array_equal(images, np.stack([expected, expected]))
    height, width = content[1]
    assert valid[:height, :width].all()
    assert valid.sum() == height * width
    assert tuple(content[0]) == Sizes.fit((129, 129), original).content


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(ValueError, match=r"this is float64 \(4, 4, 3\)"):
        serving.prepare([np.zeros((4, 4, 3))], (65, 65))


@pytest.mark.long
def test_nothing_but_numpy_and_pillow_is_imported() -> None:
    code = "import sys, kmax.predict.serving; print(*{'torch', 'lightning'}.intersection(sys.modules))"
    assert run_python("-c", code).stdout.strip() == ""

"""From a checkpoint to results: batches, thresholds at call time, mistakes."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kmax.config.trained import load_trained
from kmax.data import ShapesDataset
from kmax.inference.options import Thresholds
from kmax.predict.predictor import Predictor

LOW: dict[str, Any] = {"thing_threshold": 0.0, "stuff_threshold": 0.0, "overlap": 0.0, "pixel_threshold": 0.02}
"""At these even a model that has learnt nothing finds segments."""


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint: Path) -> Predictor:
    return Predictor.from_checkpoint(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    shapes = ShapesDataset(3, seed=5)
    return [shapes[i].image for i in range(3)]


@pytest.mark.long
def test_a_batch_equals_single_images(predictor: Predictor, images: list[np.ndarray]) -> None:
    everything = ("panoptic", "semantic", "instances")
    together = predictor.batch(images, everything, LOW)
    for image, result in zip(images, together, strict=True):
        alone = predictor.batch([image], everything, LOW)[0]
        assert result.panoptic is not None
        assert alone.panoptic is not None
        assert result.semantic is not None
        assert alone.semantic is not None
        assert result.instances is not None
        assert alone.instances is not None
        assert result.panoptic.segments  # something is found
        assert len(result.panoptic.segments) == len(alone.panoptic.segments)
        same = result.panoptic.segment_map.eq(alone.panoptic.segment_map)
        assert same.float().mean() > 0.999  # sums in another order move a pixel on an edge
        assert result.semantic.eq(alone.semantic).float().mean() > 0.999
        assert result.instances.masks.shape[1:] == image.shape[:2] == result.semantic.shape
        torch.testing.assert_close(result.instances.scores, alone.instances.scores)


def test_only_what_was_asked_for_is_made(predictor: Predictor, images: list[np.ndarray]) -> None:
    result = predictor.batch(images[:1], ["semantic"])[0]
    assert result.panoptic is result.instances is result.raw is None
    assert predictor.batch([]) == []
    result = predictor.batch(images[:1], ["instances"], top=5)[0]
    assert result.instances is not None
    assert len(result.instances.masks) <= 5


def test_thresholds_at_call_time_need_no_second_pass(
    predictor: Predictor, images: list[np.ndarray], tiny_checkpoint: Path
) -> None:
    calls = []
    handle = predictor.model.register_forward_hook(lambda *_: calls.append(1))
    raw = predictor.raw(images[:1])[0]
    none = predictor.finish(raw, thresholds={"thing_threshold": 1.0, "stuff_threshold": 1.0}).panoptic
    some = predictor.finish(raw, thresholds=LOW).panoptic
    handle.remove()
    assert len(calls) == 1
    assert none is not None
    assert some is not None
    assert none.segments == ()
    assert some.segments
    torch.testing.assert_close(predictor(images[0], LOW).segment_map, some.segment_map)
    whole = Thresholds(**LOW)
    assert predictor(images[0], whole).segments == some.segments
    assert predictor.inference == load_trained(tiny_checkpoint).inference  # a call leaves nothing behind


@pytest.mark.long
def test_thresholds_and_size_of_a_predictor(tiny_checkpoint: Path, images: list[np.ndarray]) -> None:
    predictor = Predictor.from_checkpoint(tiny_checkpoint, "cpu", size=(65, 97), thresholds={"overlap": 0.25})
    assert predictor.inference.overlap == 0.25
    assert predictor.inference.thing_threshold == load_trained(tiny_checkpoint).inference.thing_threshold
    assert predictor.raw(images[:1])[0].stages[0].mask_logits.shape[1:] == (17, 25)
    assert predictor(images[0]).segment_map.shape == images[0].shape[:2]


def test_all_stages_are_kept_on_demand(predictor: Predictor, images: list[np.ndarray]) -> None:
    plain, full = (predictor.batch(images[:1], all_stages=x)[0] for x in (False, True))
    assert plain.raw is None
    assert full.raw is not None
    assert full.panoptic is not None
    assert plain.panoptic is not None
    layers = predictor.model.get_submodule("transformer_decoder.layers")
    assert len(full.raw.stages) == len(list(layers.children())) + 1
    shapes = {stage.mask_logits.shape for stage in full.raw.stages}
    assert len(shapes) == 1
    assert full.raw.sizes.original == images[0].shape[:2]
    assert full.panoptic.segments == plain.panoptic.segments


def test_paths_and_pictures_are_images_too(predictor: Predictor, images: list[np.ndarray], tmp_path: Path) -> None:
    Image.fromarray(images[0]).save(tmp_path / "x.png")
    expected = predictor(images[0], LOW).segment_map
    for image in (tmp_path / "x.png", str(tmp_path / "x.png"), Image.fromarray(images[0]).convert("RGBA")):
        torch.testing.assert_close(predictor(image, LOW).segment_map, expected)


def test_mistakes_are_named(predictor: Predictor, tiny_checkpoint: Path, tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    (tmp_path / "text.jpg").write_text("no image")
    for bad, sentence in (
        (np.zeros((8, 8), np.uint8), r"uint8 \(8, 8\)"),
        (image.astype(float), "float64"),
        (np.zeros((0, 8, 3), np.uint8), "at least one pixel"),
        (7, "this is int"),
        (tmp_path / "text.jpg", "cannot be read as an image"),
    ):
        with pytest.raises(ValueError, match=sentence):
            predictor(bad)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        predictor("nowhere.jpg")
    with pytest.raises(ValueError, match=r"no option inference\.thing_treshold"):
        predictor(image, {"thing_treshold": 0.5})
    with pytest.raises(ValueError, match=r"thing_threshold=2\.0 must be at most 1"):
        predictor(image, {"thing_threshold": 2})
    with pytest.raises(ValueError, match="overlap=high must be a number"):
        predictor(image, {"overlap": "high"})
    with pytest.raises(ValueError, match="no result masks"):
        predictor.batch([image], ["masks"])
    with pytest.raises(ValueError, match="device=gpu cannot be used"):
        Predictor.from_checkpoint(tiny_checkpoint, device="gpu")


@pytest.mark.long
@pytest.mark.parametrize("size", [(64,), (16, 64), (64, 64, 3), 64, "64", (64.0, 64.0), ()])
def test_a_size_is_height_and_width(tiny_checkpoint: Path, size: Any) -> None:
    trained = load_trained(tiny_checkpoint)
    for make in (partial(Predictor, trained), partial(Predictor.from_checkpoint, tiny_checkpoint)):
        with pytest.raises(ValueError, match=rf"^size={re.escape(str(size))} must be height and width of the input"):
            make(size=size)

"""Parts of MaX-DeepLab's recipe: steps of the scale, random offset, color operations, crowd and weights in targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from kmax.data import color_operations
from kmax.data.color_operations import SEQUENCES, operate_on_color
from kmax.data.options import DatasetOptions
from kmax.data.shapes import ShapesDataset
from kmax.data.targets import crowd_map, make_target, weight_map
from kmax.data.training import TrainingSet
from kmax.data.transforms import draw_window
from kmax.losses import Criterion
from kmax.losses.options import LossOptions
from kmax.structures import Output, Prediction, Sample, Segment

PLAIN = DatasetOptions(size=(65, 65), scale=(0.5, 0.5), flip=False, color_jitter=False, copy_paste=False)

PROTOTYPES = LossOptions(semantic_temperature=None, instance_loss="prototypes")


def test_the_scale_is_one_of_eleven_and_sizes_are_rounded_down() -> None:
    rng = np.random.default_rng(0)
    windows = [draw_window((427, 640), (641, 641), (0.5, 1.5), False, rng, 0.1) for _ in range(300)]
    base = int(427 * 641 / 640), 641
    expected = {(int(base[0] * s / 10), int(base[1] * s / 10)) for s in range(5, 16)}
    assert {window.resized for window in windows} == expected
    assert len(expected) == 11


def test_an_image_smaller_than_the_crop_lies_anywhere_with_its_target() -> None:
    dataset = ShapesDataset(length=4, seed=1)
    still = TrainingSet(dataset, PLAIN, seed=1)
    moving = TrainingSet(dataset, replace(PLAIN, random_offset=True), seed=1)
    places = set()
    for turn in range(8):
        image, valid, _ = moving[turn, 0]
        rows, columns = valid.any(1).nonzero()[0], valid.any(0).nonzero()[0]
        top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        places.add((top, left))
        assert valid.sum() == (bottom - top) * (right - left)  # one rectangle
        assert not image[~valid].any()
        own, own_valid, _ = still[0, 0]
        content = own[: own_valid.any(1).sum(), : own_valid.any(0).sum()]
        np.testing.assert_array_equal(image[top:bottom, left:right], content)
    assert len(places) > 4
    _, valid, target = moving[3, 0]
    assert not (target.segment_map.numpy()[~valid[::4, ::4]] >= 0).any()
    assert (target.segment_map >= 0).any()


def test_each_color_operation_is_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(image)
    expected = {
        "sharpness": lambda f: ImageEnhance.Sharpness(picture).enhance(f),
        "brightness": lambda f: ImageEnhance.Brightness(picture).enhance(f),
        "contrast": lambda f: ImageEnhance.Contrast(picture).enhance(f),
        "color": lambda f: ImageEnhance.Color(picture).enhance(f),
        "solarize": lambda f: Image.fromarray(np.where(image >= 179, 255 - image, image)),
        "equalize": lambda f: ImageOps.equalize(picture),
    }
    seen = {operation.name for sequence in SEQUENCES for operation in sequence}
    assert seen == set(expected)
    for operation in {operation for sequence in SEQUENCES for operation in sequence}:
        certain = operation._replace(probability=1.0)
        monkeypatch.setattr(color_operations, "SEQUENCES", ((certain,),))
        actual = operate_on_color(image, np.random.default_rng(1))
        np.testing.assert_array_equal(actual, np.asarray(expected[operation.name](operation.strength)))


def test_each_operation_has_its_own_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dict.fromkeys(color_operations._OPERATIONS, 0)

    def counting(name: str):
        def count(image: Image.Image, strength: float) -> Image.Image:
            counts[name] += 1
            return image

        return count

    monkeypatch.setattr(color_operations, "_OPERATIONS", {name: counting(name) for name in counts})
    rng, image, draws = np.random.default_rng(0), np.zeros((2, 2, 3), np.uint8), 4000
    for _ in range(draws):
        operate_on_color(image, rng)
    for name, count in counts.items():
        wanted = sum(o.probability for sequence in SEQUENCES for o in sequence if o.name == name) / 5 * draws
        assert abs(count - wanted) < 4 * wanted**0.5, name


def crowded() -> Sample:
    """A small thing (16 cells), a large one, stuff, and a crowd of class 1."""
    segment_map = np.zeros((128, 128), np.int32)
    segment_map[:16, :16], segment_map[:100, 16:100], segment_map[100:], segment_map[:100, 100:] = 1, 2, 3, 4
    segments = (Segment(1, 0), Segment(2, 1), Segment(3, 2), Segment(4, 1, crowd=True))
    return Sample(np.zeros((128, 128, 3), np.uint8), segment_map, segments, 1)


def test_crowd_and_small_things_in_the_target() -> None:
    sample = crowded()
    target, crowd = make_target(sample, (129, 161)), crowd_map(sample, (129, 161))
    weight = weight_map(sample, (129, 161), 4, [True, True, False], 3.0)
    assert target.segment_map.shape == crowd.shape == weight.shape == (33, 41)
    assert crowd[:25, 25:32].eq(1).all()
    assert int((crowd >= 0).sum()) == 25 * 7
    assert not (target.segment_map[crowd >= 0] >= 0).any()
    assert weight[:4, :4].eq(3).all()
    assert int((weight != 1).sum()) == 16


def test_labeled_crowd_counts_in_the_semantic_loss_only_and_weights_multiply() -> None:
    torch.manual_seed(0)
    sample = crowded()
    target, size = make_target(sample, (129, 129)), 33
    feature = torch.nn.functional.normalize(torch.randn(1, 8, size, size), dim=1)
    prediction = Prediction(torch.randn(1, 6, 4), torch.randn(1, 6, size, size), feature)
    semantic = torch.randn(1, 4, size, size)
    criterion = Criterion(3, PROTOTYPES, [True, True, False])
    full = replace(
        target, crowd=crowd_map(sample, (129, 129)), weight=weight_map(sample, (129, 129), 4, [True, True, False], 3.0)
    )
    label = torch.tensor([0, 1, 2, -1])[target.segment_map]
    assert full.crowd is not None
    assert full.weight is not None
    label[full.crowd >= 0] = 1
    entropy = torch.nn.functional.cross_entropy(semantic, label[None], ignore_index=-1, reduction="none")
    losses = criterion(Output((prediction,), semantic), [full]).by_name()
    expected = (entropy * full.weight).sum() / (entropy != 0).sum()
    torch.testing.assert_close(losses["semantic"], expected)


def test_draws_carry_what_is_asked_for() -> None:
    dataset = ShapesDataset(length=2, seed=1)
    options = replace(PLAIN, color_operations=True, label_crowd=True, small_thing_weight=3.0)
    _, _, target = TrainingSet(dataset, options, seed=1)[0, 0]
    assert target.crowd is not None
    assert target.weight is not None
    assert target.crowd.eq(-1).all()  # shapes have no crowd
    assert set(target.weight.unique().tolist()) == {1.0, 3.0}
    moved = target.to("meta")
    assert moved.crowd is not None
    assert moved.crowd.is_meta

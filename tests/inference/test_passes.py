"""Passes over an image, brought into one frame and one order, and averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kmax.geometry import Sizes, content_cells
from kmax.inference.options import InferenceOptions, Thresholds
from kmax.inference.passes import Logits, average, corresponding, pass_sizes, postprocess_logits, predict
from kmax.inference.resample import resample_pass
from kmax.metrics.panoptic_quality import only_boundary
from kmax.predict.predictor import Predictor
from kmax.structures import Output, Prediction

IS_THING = [True, True, False]
COLORS = torch.tensor([[-1.0, -1, -1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, 1, 1]])
CLASS = [2, 0, 1, 0, 2, 3]  # of each color; white is void


class ColorModel:
    """Finds the six colors of an image; which query holds which color depends on the size of the image and on how
    bright its left half is, as in a network whose queries are slots."""

    def __init__(self, shuffle: bool = True, sharpness: float = 6.0) -> None:
        self.shuffle, self.sharpness = shuffle, sharpness
        self.inputs: list[Tensor] = []

    def __call__(self, images: Tensor, coarse: bool = True) -> Output:
        assert not coarse
        assert images.shape[-1] % 32 == 1
        self.inputs.append(images)
        cells = images[0, :, ::4, ::4]
        distance = (cells[None] - COLORS[..., None, None]).abs().sum(1)
        logits = -self.sharpness * distance
        classes = 6 * torch.nn.functional.one_hot(torch.tensor(CLASS), 4).float()
        if self.shuffle:
            order = (images.shape[-1] + int(images[0, :, :, :16].mean() * 1000)) % 1000
            permutation = torch.randperm(6, generator=torch.Generator().manual_seed(order))
            logits, classes = logits[permutation], classes[permutation]
        return Output((Prediction(classes[None], logits[None], cells[None]),))


def picture(height: int, width: int) -> np.ndarray:
    """Blocks of five colors, not symmetrical, with edges off the grid of cells."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 3] = (255, 0, 0)
    image[height // 3 :, -width // 4 :] = (0, 255, 0)
    image[-height // 4 :, width // 8 : width // 2] = (0, 0, 255)
    image[: height // 5, width // 2 :] = (255, 255, 0)
    return image


OPTIONS = InferenceOptions(thing_threshold=0.4, stuff_threshold=0.4)


def found(options: InferenceOptions, image: np.ndarray, size: tuple[int, int], shuffle: bool = True) -> np.ndarray:
    logits = predict(ColorModel(shuffle), image, size, options)
    result = postprocess_logits(logits, IS_THING, options).panoptic
    labels = {0: -1, **{s.id: s.label for s in result.segments}}
    assert result.segment_map.shape == image.shape[:2]
    return np.vectorize(labels.get)(result.segment_map.numpy())


@pytest.mark.parametrize("shape", [(97, 97), (70, 129), (129, 55)])
@pytest.mark.parametrize(
    "changes",
    [
        {"flip": True},
        {"pad": False},
        {"scales": (1.0, 1.5)},
        {"scales": (0.75, 1, 1.25), "flip": True},
        {"scales": (0.75, 1, 1.25), "flip": True, "pad": False},
    ],
)
def test_passes_agree_where_the_network_does(shape: tuple[int, int], changes: dict) -> None:
    image = picture(*shape)
    single = found(OPTIONS, image, (129, 129), shuffle=False)
    assert set(np.unique(single)) >= {0, 1, 2}
    averaged = found(InferenceOptions(thing_threshold=0.4, stuff_threshold=0.4, **changes), image, (129, 129))
    inside = only_boundary(single.astype(np.int32) + 2, 3) == -1  # away from contours, which move by half a cell
    assert inside.mean() > 0.3
    assert (averaged == single)[inside].mean() > 0.995


@pytest.mark.parametrize("padded", [((129, 129), (97, 97)), ((128, 128), (96, 96))])
@pytest.mark.parametrize("mirrored", [False, True])
def test_what_is_linear_in_the_image_is_resampled_exactly(padded: tuple, mirrored: bool) -> None:
    first, second = (Sizes.fit(size, (60, 100)) for size in padded)
    odd = first.padded[1] % 2

    def ramp(sizes: Sizes) -> Logits:
        """Two queries, the part of the height and of the width that lies above and to the left of a cell."""
        stride, shift = 4, 0 if odd else 0.5
        rows, columns = (
            (torch.arange((p + 3) // 4) + shift) * stride / (c - odd)
            for p, c in zip(sizes.padded, sizes.content, strict=True)
        )
        return Logits(torch.zeros(2, 3), torch.stack(torch.meshgrid(rows, columns, indexing="ij")), sizes)

    reference, other = ramp(first), ramp(second)
    if mirrored:
        other.mask_logits[1] = 1 - other.mask_logits[1]
    height, width = reference.mask_logits.shape[1:]
    result = resample_pass(other.mask_logits, other.sizes, first, (height, width), mirrored)
    rows, columns = content_cells(first, reference.mask_logits.shape[1:])
    inside = slice(1, rows - 1), slice(1, columns - 1)
    for found, expected in zip(result, reference.mask_logits, strict=True):
        torch.testing.assert_close(found[inside].float(), expected[inside])


def test_a_mirrored_pass_lies_on_the_reference_exactly() -> None:
    image = picture(129, 129)
    options = InferenceOptions(flip=True)
    model = ColorModel()
    averaged = predict(model, image, (129, 129), options)
    reference, mirrored = model.inputs
    torch.testing.assert_close(mirrored, reference.flip(-1))
    plain = predict(ColorModel(), image, (129, 129), InferenceOptions())
    torch.testing.assert_close(averaged.mask_logits.softmax(0), plain.mask_logits.softmax(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(averaged.class_logits.softmax(-1), plain.class_logits.softmax(-1))


def random_logits(seed: int, cells: tuple[int, int] = (33, 33)) -> Logits:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.nn.functional.interpolate(8 * torch.randn(1, 7, 5, 5, generator=generator), cells, mode="bicubic")
    return Logits(torch.randn(7, 5, generator=generator), masks[0], Sizes.fit((129, 129), (129, 129)))


def test_averaging_with_oneself_changes_nothing() -> None:
    logits = random_logits(0)
    result = average(logits, [(logits, False), (logits, False)])
    torch.testing.assert_close(result.mask_logits.softmax(0), logits.mask_logits.softmax(0))
    torch.testing.assert_close(result.class_logits.softmax(-1), logits.class_logits.softmax(-1))


def test_the_mean_is_one_of_probabilities_of_the_same_slot() -> None:
    first = random_logits(1)
    order = torch.tensor([3, 0, 6, 1, 2, 5, 4])
    noisy = first.mask_logits + torch.randn(first.mask_logits.shape, generator=torch.Generator().manual_seed(9)) / 9
    other = Logits(first.class_logits[order] + 1.5, noisy[order], first.sizes)
    inverse = order.argsort()
    result = average(first, [(other, False)])
    occupied = first.mask_logits.argmax(0).unique()
    expected = (first.class_logits.softmax(-1) + other.class_logits[inverse].softmax(-1)) / 2
    torch.testing.assert_close(result.class_logits.softmax(-1)[occupied], expected[occupied])
    expected = (first.mask_logits.softmax(0) + noisy.softmax(0)) / 2
    torch.testing.assert_close(result.mask_logits.softmax(0)[occupied], expected[occupied], atol=1e-3, rtol=0)


def test_what_has_no_counterpart_keeps_the_reference() -> None:
    first, other = random_logits(2), random_logits(3)
    own = corresponding(first.mask_logits, other.mask_logits, (33, 33))
    result = average(first, [(other, False)])
    alone = own < 0
    assert alone.sum() >= 4
    torch.testing.assert_close(result.class_logits.softmax(-1)[alone], first.class_logits.softmax(-1)[alone])


@pytest.mark.parametrize("seed", range(6))
def test_counterparts_overlap_by_more_than_half(seed: int) -> None:
    first = random_logits(seed).mask_logits
    other = first + torch.randn(first.shape, generator=torch.Generator().manual_seed(seed)) * seed
    rows, columns = 20, 33
    a, b = (masks[:, :rows, :columns].argmax(0) for masks in (first, other))
    own = corresponding(first, other, (rows, columns))
    for query in range(len(first)):
        ious = [((a == query) & (b == n)).sum() / ((a == query) | (b == n)).sum().clamp(min=1) for n in range(7)]
        best = int(np.argmax(ious))
        assert own[query] == (best if ious[best] > 0.5 else -1)


def test_sizes_of_passes() -> None:
    def sizes(scale: float, padding: bool, size: tuple[int, int] = (1281, 1281)) -> tuple:
        result = pass_sizes(size, (480, 640), scale, padding)
        return result.padded, result.content

    assert sizes(1, True) == ((1281, 1281), (961, 1281))
    assert sizes(1, False) == ((961, 1281), (961, 1281))
    assert sizes(0.75, True) == ((961, 961), (721, 961))
    assert sizes(0.75, False) == ((737, 961), (721, 961))
    assert sizes(1.25, True) == ((1601, 1601), (1201, 1601))
    assert sizes(1, False, (1280, 1280)) == ((960, 1280), (960, 1280))
    assert sizes(1, True, (130, 130)) == ((130, 130), (98, 130))
    assert pass_sizes((1025, 2049), (1024, 2048), 0.5, True).padded == (513, 1025)
    assert pass_sizes((129, 129), (1, 500), 1, False).padded == (33, 129)


def test_without_padding_every_cell_is_content() -> None:
    model = ColorModel()
    predict(model, picture(60, 129), (129, 129), InferenceOptions(pad=False))
    assert model.inputs[0].shape == (1, 3, 65, 129)
    assert content_cells(Sizes((65, 129), (60, 129), (60, 129)), (17, 33)) == (16, 33)


@pytest.mark.parametrize("scales", [(), (0.0,), (-1.0,), (5.0,)])
def test_impossible_scales_are_named(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"scales=.* must be"):
        InferenceOptions(scales=scales)


def test_the_reference_is_the_scale_nearest_to_one() -> None:
    options = InferenceOptions(scales=(0.75, 1.25, 1.0, 1.0), flip=True)
    assert options.passes[:2] == [(1.0, False), (1.0, True)]
    assert len(options.passes) == 6
    assert InferenceOptions().plain
    assert not options.plain
    assert isinstance(options, Thresholds)


@pytest.mark.long
def test_the_predictor_takes_test_time_options(tiny_checkpoint: Path) -> None:
    options = {"flip": True, "scales": [0.75, 1], "pad": False}
    predictor = Predictor.from_checkpoint(tiny_checkpoint, "cpu", (129, 129), options)
    image = picture(60, 110)
    averaged = predictor.raw([image])[0]
    assert averaged.sizes.padded == (97, 129)
    expected = predict(predictor.model, image, (129, 129), InferenceOptions(flip=True, scales=(0.75, 1), pad=False))
    torch.testing.assert_close(averaged.stages[-1].mask_logits, expected.mask_logits)
    assert predictor(image).segment_map.shape == (60, 110)
    plain = {"flip": False, "scales": [1], "pad": True}
    raw = predictor.batch([image], thresholds=plain, all_stages=True)[0].raw
    assert raw is not None
    assert raw.sizes.padded == (129, 129)
    with pytest.raises(ValueError, match="all layers come from one plain pass"):
        predictor.batch([image], all_stages=True)
    with pytest.raises(ValueError, match="flip=1 must be true or false"):
        predictor(image, {"flip": 1})

"""Post-processing against recorded numbers, and strips against dense planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kmax.geometry import Sizes
from kmax.inference import postprocess, resample
from kmax.inference.options import Thresholds
from kmax.inference.postprocess import instances, panoptic, semantic, semantic_scores

FILES = sorted((Path(__file__).parents[1] / "golden").glob("postprocess_*.npz"))


class Case:
    """One recorded image."""

    def __init__(self, path: Path) -> None:
        self.data = data = dict(np.load(path))
        self.class_logits = torch.as_tensor(data["class_logits"])
        self.mask_logits = torch.as_tensor(data["mask_logits"])
        things = set(data["things"].tolist())
        self.is_thing = [label in things for label in range(self.class_logits.shape[1] - 1)]
        number = {key.removeprefix("threshold/"): float(data[key]) for key in data if key.startswith("threshold/")}
        self.thresholds = Thresholds(
            alpha=number["reorder_class_weight"],
            beta=number["reorder_mask_weight"],
            thing_threshold=number["class_threshold_thing"],
            stuff_threshold=number["class_threshold_stuff"],
            overlap=number["overlap_threshold"],
            pixel_threshold=number["pixel_confidence_threshold"],
        )
        self.sizes = None
        if "padded_size" in data:
            # The published code cuts to proportions of the padded size, not to the recorded `image_size`.
            self.sizes = Sizes.fit(data["padded_size"].tolist(), data["original_size"].tolist())


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.mark.parametrize("strip", [1, 2**20])
def test_panoptic_equals_recorded(case: Case, strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(resample._STRIP_ELEMENTS, "cpu", strip)
    result = panoptic(case.class_logits, case.mask_logits, case.is_thing, case.thresholds, case.sizes)
    np.testing.assert_array_equal(result.segment_map.numpy(), case.data["panoptic/map"])
    assert [s.id for s in result.segments] == case.data["panoptic/ids"].tolist()
    assert [s.label for s in result.segments] == case.data["panoptic/categories"].tolist()
    assert result.segment_map.dtype == torch.int32


@pytest.mark.long
def test_semantic_equals_recorded(case: Case) -> None:
    result = semantic(case.class_logits, case.mask_logits, case.sizes)
    np.testing.assert_array_equal(result.numpy(), case.data["semantic/argmax"])
    scores = torch.cat(list(semantic_scores(case.class_logits, case.mask_logits, case.sizes))).permute(2, 0, 1)
    assert tuple(scores.shape) == tuple(case.data["semantic/scores/shape"])
    values = scores.flatten()[:: int(case.data["semantic/scores/stride"])]
    np.testing.assert_allclose(values, case.data["semantic/scores/values"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores.double().sum(), case.data["semantic/scores/sum"], rtol=1e-5)


def test_instances_equal_recorded(case: Case) -> None:
    result = instances(case.class_logits, case.mask_logits, case.is_thing, case.thresholds, case.sizes, top=20)
    np.testing.assert_allclose(result.scores, case.data["instance/scores"], rtol=1e-5, atol=1e-7)
    found = case.data["instance/scores"] > 0
    np.testing.assert_array_equal(result.labels[found], case.data["instance/classes"][found])
    np.testing.assert_array_equal(result.masks.sum((1, 2)), case.data["instance/areas"])
    assert sorted(result.labels.tolist()) == sorted(case.data["instance/classes"].tolist())


def smooth(queries: int, height: int, width: int, seed: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Class and mask logits (float64) with sensible segments that overlap."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 8 * torch.randn(1, queries, 5, 5, generator=generator, dtype=torch.float64)
    masks = F.interpolate(coarse, (height, width), mode="bicubic")[0]
    return 3 * torch.randn(queries, classes + 1, generator=generator, dtype=torch.float64), masks


def dense_probabilities(masks: torch.Tensor, sizes: Sizes | None) -> torch.Tensor:
    if sizes is not None:
        aligned = sizes.padded[1] % 2 == 1
        masks = F.interpolate(masks[None], sizes.padded, mode="bilinear", align_corners=aligned)
        masks = masks[..., : sizes.content[0], : sizes.content[1]]
        masks = F.interpolate(masks, sizes.original, mode="bilinear", align_corners=aligned)[0]
    return masks.softmax(0)


def dense_panoptic(
    classes: torch.Tensor, masks: torch.Tensor, is_thing: list[bool], t: Thresholds, sizes: Sizes | None
) -> torch.Tensor:
    """The definition, with a full plane per query."""
    p = dense_probabilities(masks, sizes)
    claimed = p > t.pixel_threshold
    probability, label = classes.softmax(-1)[:, :-1].max(-1)
    confidence = (p * claimed).sum((1, 2)) / claimed.sum((1, 2)).clamp(min=1)
    result, segments = torch.zeros(p.shape[1:], dtype=torch.int32), 0
    stuff: dict[int, int] = {}
    for query in (probability**t.alpha * confidence**t.beta).argsort(descending=True).tolist():
        kind = int(label[query])
        free = claimed[query] & (result == 0)
        if probability[query] <= (t.thing_threshold if is_thing[kind] else t.stuff_threshold):
            continue
        if free.sum() <= t.overlap * claimed[query].sum():
            continue
        if kind in stuff:
            result[free] = stuff[kind]
            continue
        segments += 1
        result[free] = segments
        if not is_thing[kind]:
            stuff[kind] = segments
    return result


SIZES = [
    None,
    Sizes.fit((65, 65), (65, 65)),
    Sizes.fit((65, 65), (40, 77)),
    Sizes.fit((64, 64), (90, 31)),
    Sizes.fit((33, 33), (33, 20)),  # the masks are finer than the image
    Sizes.fit((65, 65), (1, 1)),
]


@pytest.mark.parametrize("pixel_threshold", [0.0, 0.05, 0.2, 1 / 3, 0.4, 0.5, 0.7])
@pytest.mark.parametrize("sizes", SIZES)
def test_panoptic_equals_the_definition(pixel_threshold: float, sizes: Sizes | None) -> None:
    is_thing = [True, True, True, False, False]
    for seed in range(4):
        thresholds = Thresholds(1, 1, 0.4, 0.4, 0.3, pixel_threshold)
        classes, masks = smooth(12, 49, 49, seed)
        result = panoptic(classes, masks, is_thing, thresholds, sizes)
        expected = dense_panoptic(classes, masks, is_thing, thresholds, sizes)
        torch.testing.assert_close(result.segment_map, expected)
        assert [s.id for s in result.segments] == [i for i in expected.unique().tolist() if i]


def test_many_patches_are_numbered_the_other_way_too(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = torch.randint(50, (1000,))
    counted = postprocess._unique(keys, 50)
    for a, b in zip(counted, postprocess._unique(keys, 2**40), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("sizes", SIZES)
def test_instance_masks_equal_the_definition(sizes: Sizes | None) -> None:
    classes, masks = smooth(6, 49, 49, 7)
    result = instances(classes, masks, [True] * 5, Thresholds(pixel_threshold=0.2), sizes)
    p = dense_probabilities(masks, sizes)
    assert len(result.scores) == 6 * 5
    for mask, label, score in zip(result.masks, result.labels, result.scores, strict=True):
        query = [q for q in range(6) if torch.equal(mask, p[q] > 0.2)]
        expected = [classes.softmax(-1)[q, label] * (p[q][mask].mean() if mask.any() else 0.0) for q in query]
        assert any(torch.isclose(score, e) for e in expected)


def test_half_precision_is_raised() -> None:
    classes, masks = (x.bfloat16() for x in smooth(6, 17, 17, 1))
    low = panoptic(classes, masks, [True] * 5, sizes=SIZES[2])
    high = panoptic(classes.float(), masks.float(), [True] * 5, sizes=SIZES[2])
    torch.testing.assert_close(low.segment_map, high.segment_map)


def test_sizes_keep_proportions_and_fit() -> None:
    assert Sizes.fit((1281, 1281), (480, 640)).content == (961, 1281)
    assert Sizes.fit((1025, 2049), (1024, 2048)).content == (1024, 2049)
    assert Sizes.fit((1025, 2049), (2000, 1000)).content == (1025, 512)
    assert Sizes.fit((65, 65), (1, 1000)).content == (1, 65)


def test_what_does_not_fit_is_named() -> None:
    classes, masks = smooth(4, 9, 9, 0)
    with pytest.raises(ValueError, match="3 categories do not fit"):
        panoptic(classes, masks, [True] * 3)
    with pytest.raises(ValueError, match="of one image"):
        semantic(classes[:3], masks)
    with pytest.raises(ValueError, match=r"overlap=1\.5 must be at most 1"):
        Thresholds(overlap=1.5)

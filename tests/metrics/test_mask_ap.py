"""COCO's average precision, streamed image by image, against pycocotools on the whole set."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kmax.metrics import MaskAP, MaskAPResult
from kmax.structures import Instances
from segmentation_cases import CATEGORIES, NUMBER, Case, case

THINGS = [label for label, thing in enumerate(CATEGORIES.is_thing) if thing]


def measure(cases: Sequence[Case]) -> MaskAPResult:
    metric = MaskAP(CATEGORIES.is_thing)
    for one in cases:
        metric.update([one.instances], [one.truth])
    return metric.compute()


def encoded(mask: np.ndarray) -> dict:
    return rle.encode(np.asfortranarray(mask.astype(np.uint8)))


Entries = list[dict[str, Any]]


def official(cases: Sequence[Case]) -> COCOeval:
    """What somebody does who has files in COCO's format."""
    images, annotations, results = Entries(), Entries(), Entries()
    for one in cases:
        height, width = one.truth.segment_map.shape
        images.append({"id": one.truth.image_id, "height": height, "width": width})
        for segment in one.truth.segments:
            mask = encoded(one.truth.segment_map == segment.id)
            if segment.label in THINGS:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": one.truth.image_id,
                        "category_id": segment.label,
                        "segmentation": mask,
                        "area": float(rle.area(mask)),
                        "iscrowd": int(segment.crowd),
                    }
                )
        found = one.instances
        for mask, label, score in zip(found.masks.numpy(), found.labels.tolist(), found.scores.tolist(), strict=True):
            results.append(
                {
                    "image_id": one.truth.image_id,
                    "category_id": label,
                    "segmentation": encoded(mask),
                    "score": score,
                }
            )
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i} for i in THINGS],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        if results:
            predicted = truth.loadRes(results)
        else:
            predicted = COCO()
            predicted.dataset = {**truth.dataset, "annotations": []}
            predicted.createIndex()
        evaluation = COCOeval(truth, predicted, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def assert_equal(result: MaskAPResult, evaluation: COCOeval) -> None:
    values = [result.ap, result.ap50, result.ap75, result.small, result.medium, result.large]
    fractions = [-1.0 if value is None else value / 100 for value in values]
    np.testing.assert_allclose(fractions, evaluation.stats[:6], rtol=0, atol=1e-6)
    precision = evaluation.eval["precision"]
    for place, label in enumerate(THINGS):
        for ours, theirs in (
            (result.per_class[label], precision[:, :, place, 0, -1]),
            (result.per_class50[label], precision[0, :, place, 0, -1]),
        ):
            known = theirs[theirs > -1]
            assert (ours is None) == (known.size == 0)
            assert ours is None or ours == pytest.approx(100 * known.mean(), abs=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(NUMBER))
def test_an_image_equals_pycocotools(seed: int) -> None:
    assert_equal(measure([case(seed)]), official([case(seed)]))


def test_a_set_equals_pycocotools_in_any_order() -> None:
    cases = [case(seed) for seed in range(NUMBER)]
    expected = official(cases)
    assert expected.stats[0] > 0.1
    assert_equal(measure(cases), expected)
    assert measure(cases[::-1]) == measure(cases)


def test_more_than_a_hundred_masks_of_a_class() -> None:
    one = case(0)
    label = next(s.label for s in one.truth.segments if s.label in THINGS and not s.crowd)
    masks = one.instances.masks[:1].repeat(150, 1, 1)
    truth_mask = torch.as_tensor(one.truth.segment_map == next(s.id for s in one.truth.segments if s.label == label))
    masks[120] = truth_mask  # beyond the hundredth: not counted
    many = Instances.from_masks(masks, torch.full((150,), label), torch.linspace(0.9, 0.1, 150))
    crowded = Case(one.truth, one.panoptic, one.semantic, many)
    assert_equal(measure([crowded]), official([crowded]))


def test_ranks_give_the_same_digits() -> None:
    cases = [case(seed) for seed in range(12)]
    ranks = [MaskAP(CATEGORIES.is_thing) for _ in range(2)]
    for i, one in enumerate(cases):
        ranks[i % 2].update([one.instances], [one.truth])
    both = MaskAP(CATEGORIES.is_thing)
    both.packed = [part for rank in ranks for part in rank.packed]
    both.lengths = [part for rank in ranks for part in rank.lengths]
    both._update_count = 1
    assert both.compute() == measure(cases)


def test_what_is_kept_of_an_image_is_small() -> None:
    metric = MaskAP(CATEGORIES.is_thing)
    metric.update([case(0).instances], [case(0).truth])
    assert sum(len(record) for record in metric.packed) < 2000


def test_masks_of_another_size_are_named() -> None:
    one = case(0)
    wrong = Instances.from_masks(torch.zeros(1, 4, 5, dtype=torch.bool), torch.zeros(1).long(), torch.ones(1))
    with pytest.raises(ValueError, match=r"The prediction for 0 has size \(4, 5\)"):
        MaskAP(CATEGORIES.is_thing).update([wrong], [one.truth])
    wrong = Instances.from_masks(one.instances.masks[:1], torch.tensor([99]), torch.ones(1))
    with pytest.raises(ValueError, match="label outside 0 … 18"):
        MaskAP(CATEGORIES.is_thing).update([wrong], [one.truth])

"""Results in the types of other libraries, by those libraries where they are installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kmax.results.adapters import to_image_segmentation, to_supervision
from kmax.structures import Instances, PanopticMap
from segmentation_cases import CATEGORIES, NUMBER, Case, case

CASES = [case(seed) for seed in range(NUMBER)]
EMPTY = PanopticMap(torch.zeros(4, 6, dtype=torch.int32), ())
NO_INSTANCES = Instances((4, 6), (), torch.zeros(0, dtype=torch.long), torch.zeros(0))


@pytest.mark.parametrize("one", CASES)
def test_supervision_takes_segments(one: Case) -> None:
    supervision = pytest.importorskip("supervision")
    found = to_supervision(one.panoptic, CATEGORIES)
    assert isinstance(found, supervision.Detections)
    assert len(found) == len(one.panoptic.segments)
    for row, segment in enumerate(one.panoptic.segments):
        mask = (one.panoptic.segment_map == segment.id).numpy()
        np.testing.assert_array_equal(found.mask[row], mask)
        rows, columns = np.nonzero(mask)
        assert found.xyxy[row].tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]
        assert found.class_id[row] == segment.label
        assert found["class_name"][row] == CATEGORIES.names[segment.label]
        assert found.confidence[row] == segment.score
    np.testing.assert_array_equal(found.area, [m.sum() for m in found.mask])


def test_supervision_takes_instances_and_draws_them() -> None:
    supervision = pytest.importorskip("supervision")
    one = max(CASES, key=lambda one: len(one.instances.runs)).instances
    found: Any = to_supervision(one, CATEGORIES)  # its fields may be None
    seen = [runs.area > 0 for runs in one.runs]
    assert 0 < len(found) == sum(seen)
    np.testing.assert_array_equal(found.mask, one.masks.numpy()[seen])
    np.testing.assert_allclose(found.confidence, one.scores.numpy()[seen])
    picture = np.zeros((*one.size, 3), np.uint8)
    assert supervision.MaskAnnotator().annotate(picture.copy(), found).any()
    assert supervision.LabelAnnotator().annotate(picture.copy(), found).any()
    kept = found[found.class_id == found.class_id[0]]
    assert set(kept["class_name"]) == {CATEGORIES.names[found.class_id[0]]}


@pytest.mark.parametrize("nothing", [EMPTY, NO_INSTANCES])
def test_nothing_stays_nothing(nothing: PanopticMap | Instances) -> None:
    assert to_image_segmentation(nothing, CATEGORIES) == []
    pytest.importorskip("supervision")
    found: Any = to_supervision(nothing, CATEGORIES)
    assert len(found) == 0
    assert found.mask.shape == (0, 4, 6)


def same(ours: list[dict], theirs: list[dict]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        assert (one["score"], one["label"], one["mask"].mode) == (other["score"], other["label"], other["mask"].mode)
        np.testing.assert_array_equal(np.asarray(one["mask"]), np.asarray(other["mask"]))


@pytest.mark.long
@pytest.mark.parametrize("one", CASES)
def test_segments_are_what_the_pipeline_of_transformers_returns(one: Case) -> None:
    """Its own `postprocess`, with a model and an image processor that return our map."""
    pytest.importorskip("transformers")
    from transformers import ImageSegmentationPipeline

    described = [{"id": s.id, "label_id": s.label, "score": s.score} for s in one.panoptic.segments]
    processed = {"segmentation": one.panoptic.segment_map, "segments_info": described}
    pipeline: Any = ImageSegmentationPipeline.__new__(ImageSegmentationPipeline)
    pipeline.image_processor = SimpleNamespace(post_process_panoptic_segmentation=lambda *_, **__: [processed])
    pipeline.model = SimpleNamespace(config=SimpleNamespace(id2label=dict(enumerate(CATEGORIES.names))))
    theirs = pipeline.postprocess({"target_size": None}, subtask="panoptic")
    same(to_image_segmentation(one.panoptic, CATEGORIES), theirs)


def test_instances_have_a_mask_each() -> None:
    one = CASES[0].instances
    for entry, mask, score, label in zip(
        to_image_segmentation(one, CATEGORIES), one.masks, one.scores, one.labels, strict=True
    ):
        assert isinstance(entry["mask"], Image.Image)
        np.testing.assert_array_equal(np.asarray(entry["mask"]), 255 * mask.numpy().astype(np.uint8))
        assert (entry["score"], entry["label"]) == (float(score), CATEGORIES.names[int(label)])

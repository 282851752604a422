"""Post-processing against recorded numbers, and strips against dense planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kmax import postprocess
from kmax.postprocess import Sizes, Thresholds, instances, panoptic, semantic, semantic_scores

FILES = sorted((Path(__file__).parent / "golden").glob("postprocess_*.npz"))


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
    monkeypatch.setitem(postprocess._STRIP_ELEMENTS, "cpu", strip)
    result = panoptic(case.class_logits, case.mask_logits, case.is_thing, case.thresholds, case.sizes)
    np.testing.assert_array_equal(result.segment_map.numpy(), case.data["panoptic/map"])
    assert [s.id for s in result.segments] == case.data["panoptic/ids"].tolist()
    assert [s.label for s in result.segments] == case.data["panoptic/categories"].tolist()
    assert result.segment_map.dtype == torch.int32


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

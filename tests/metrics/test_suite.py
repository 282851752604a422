"""All metrics together: what must not change them, what a perfect prediction scores, and the report."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmax.categories import load_categories
from kmax.metrics import METRICS, MetricSuite, Report
from kmax.structures import Segmentations
from segmentation_cases import CATEGORIES, NUMBER, Case, case, perfect, relabeled


def report(cases: list[Case], mask_ap: str = "coco") -> Report:
    suite = MetricSuite(METRICS, CATEGORIES, mask_ap)
    for one in cases:
        suite.update([Segmentations(one.panoptic, one.semantic, one.instances)], [one.truth])
    return suite.compute()


@pytest.mark.long
@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, NUMBER - 2), seed=st.integers(0, 2**31), mask_ap=st.sampled_from(["coco", "cityscapes"]))
def test_ids_and_their_order_change_nothing(start: int, seed: int, mask_ap: str) -> None:
    cases = [case(start), case(start + 1)]
    assert report([relabeled(one, seed) for one in cases], mask_ap) == report(cases, mask_ap)


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, NUMBER - 2), mask_ap=st.sampled_from(["coco", "cityscapes"]))
def test_the_truth_scores_100(start: int, mask_ap: str) -> None:
    cases = [perfect(case(start)), perfect(case(start + 1))]
    result = report(cases, mask_ap)
    assert any(one.truth.segments for one in cases)
    numbers = [result.all[key] for key in ("pq", "sq", "rq", "boundary_pq", "miou", "pixel_accuracy", "ap", "ap50")]
    found = [value for value in numbers if value is not None]
    assert len(found) >= 6
    assert found == pytest.approx([100] * len(found))
    for row in result.per_class:
        if row["tp"]:
            assert row["pq"] == row["boundary_pq"] == row["miou"] == pytest.approx(100)


def test_one_row_per_class_that_occurs() -> None:
    result = report([case(0)])
    rows = result.rows()
    assert [row["name"] for row in rows[:3]] == ["all", "things", "stuff"]
    assert len(result.per_class) == CATEGORIES.num_classes
    present = {CATEGORIES.names[s.label] for s in case(0).truth.segments}
    assert present <= {row["name"] for row in rows} < set(CATEGORIES.names) | {"all", "things", "stuff"}
    assert set(result.columns()) >= {"pq", "sq", "rq", "tp", "fp", "fn", "miou", "ap", "ap50", "boundary_pq"}
    assert json.loads(json.dumps(result.to_dict()))["all"]["pq"] == result.all["pq"]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # no image was seen: that is the case
def test_only_what_is_asked_for() -> None:
    suite = MetricSuite(["pq"], CATEGORIES)
    assert (suite.needs_semantic, suite.needs_instances) == (False, False)
    one = case(0)
    suite.update([Segmentations(one.panoptic)], [one.truth])
    assert set(suite.compute().all) == {"pq", "sq", "rq", "tp", "fp", "fn"}
    suite.reset()
    assert suite.compute().all["fn"] == 0
    both = MetricSuite(["ap", "miou"], CATEGORIES)
    assert (both.needs_semantic, both.needs_instances) == (True, True)
    assert not both.state_dict()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # no image was seen: that is the case
def test_no_image_and_no_things() -> None:
    empty = MetricSuite(METRICS, CATEGORIES).compute()
    assert (empty.all["pq"], empty.all["miou"], empty.all["ap"]) == (0, None, None)
    assert len(empty.rows()) == 3


@pytest.mark.parametrize(
    ("names", "options", "sentence"),
    [
        (["pq", "pqq"], {}, "pqq is unknown; choose from pq, miou, ap, boundary_pq"),
        ([], {}, "none is named"),
        (["ap"], {"mask_ap": "voc"}, "mask_ap=voc is unknown: choose one of coco, cityscapes"),
    ],
)
def test_unknown_metrics_are_named(names: list[str], options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        MetricSuite(names, load_categories("shapes"), **options)

"""The cluster viewer: what it shows of predictions that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kmax.categories import load_categories
from kmax.config.build import build_model
from kmax.structures import Prediction
from kmax.visualization import cluster_color, draw_cluster_viewer, draw_clusters, main_query
from kmax.visualization.clusters import feature_colors, mask_probabilities, top_class
from kmax.visualization.palette import heat

CATEGORIES = load_categories("shapes")
H, W, QUERIES, DEPTH = 12, 16, 5, 8


def stage(owner: torch.Tensor, labels: list[int], sure: float = 4.0) -> Prediction:
    """A prediction whose pixels belong to `owner` (h, w) and whose queries stand for `labels`."""
    masks = sure * torch.nn.functional.one_hot(owner, QUERIES).permute(2, 0, 1).float()
    classes = torch.zeros(QUERIES, CATEGORIES.num_classes + 1)
    classes[range(QUERIES), labels] = torch.arange(QUERIES) + 2.0
    directions = torch.eye(DEPTH)[:QUERIES]
    return Prediction(classes, masks, directions[owner].permute(2, 0, 1))


def owners() -> torch.Tensor:
    owner = torch.zeros(H, W, dtype=torch.int64)
    owner[:, W // 2 :] = 1
    owner[4:8, 2:6] = 3
    return owner


VOID = CATEGORIES.num_classes
STAGES = (stage(owners().flip(1), [0] * QUERIES), stage(owners(), [6, 7, 0, 2, VOID]))


def test_clusters_have_fixed_distinct_colors() -> None:
    every = draw_clusters(np.arange(128)[None])[0]
    assert len(np.unique(every, axis=0)) == 128
    assert tuple(draw_clusters(np.array([[7]]))[0, 0]) == tuple(every[7]) == cluster_color(7)
    assert draw_clusters(np.array([[0, 1]]), (4, 6)).shape == (4, 6, 3)


def test_probabilities_and_classes_are_those_of_the_prediction() -> None:
    masks = mask_probabilities(STAGES[1].mask_logits)
    np.testing.assert_allclose(masks.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(masks.argmax(0), owners())
    assert top_class(STAGES[1], 3, CATEGORIES).startswith("triangle ")
    assert top_class(STAGES[1], 4, CATEGORIES).startswith("void ")
    assert main_query(STAGES[1]) == 3  # 4 is surer, but of void and without a pixel; 2 has no pixel either


def test_equal_features_have_equal_colors_and_layers_agree() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(3, 10, 10))
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    lifted = [
        np.tensordot(np.linalg.qr(rng.normal(size=(6, 3)))[0], m, 1) for m in (np.tensordot(turned, base, 1), base)
    ]
    first, second = (picture.astype(int) for picture in feature_colors(lifted))
    assert np.abs(first - second).max() <= 2  # the same features up to a rotation: the same picture
    flat = feature_colors([np.ones((6, 4, 4))])[0]
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1
    picture = feature_colors([STAGES[1].pixel_feature.numpy()])[0]
    for query in (0, 1, 3):
        assert len(np.unique(picture[owners().numpy() == query], axis=0)) == 1
    assert feature_colors([rng.normal(size=(2, 3, 3))])[0].shape == (3, 3, 3)


def test_the_viewer_shows_every_stage() -> None:
    image = np.full((96, 128, 3), 90, np.uint8)
    picture = draw_cluster_viewer(image, STAGES, CATEGORIES, ["layer 1", "final"], long_side=128)
    assert picture.shape[0] > 4 * 96
    assert picture.shape[1] >= 3 * 128
    for query in (0, 1, 3):
        assert (picture == cluster_color(query)).all(-1).sum() > 100
    other = draw_cluster_viewer(image, STAGES, CATEGORIES, ["layer 1", "final"], query=1, long_side=128)
    assert (picture[: picture.shape[0] // 4] == other[: other.shape[0] // 4]).all()  # the cluster map is the same
    assert (picture != other).any()
    with pytest.raises(ValueError, match=r"no query 5: .* 0 … 4"):
        draw_cluster_viewer(image, STAGES, CATEGORIES, ["layer 1", "final"], query=5)


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (400, 5)])
def test_the_viewer_takes_any_image(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    assert draw_cluster_viewer(image, STAGES, CATEGORIES, ["a", "b"]).ndim == 3


@pytest.mark.long
def test_the_slots_of_max_deeplab_are_shown_block_by_block() -> None:
    model = build_model("shapes_max_deeplab").eval()
    image = np.random.default_rng(0).integers(0, 256, (65, 65, 3), dtype=np.uint8)
    with torch.inference_mode():
        output = model(torch.as_tensor(image).permute(2, 0, 1)[None] / 127.5 - 1)
    stages = [Prediction(*(tensor[0] for tensor in stage)) for stage in output.predictions]
    names = model.stage_names
    assert len(stages) == len(names) > 2
    assert names[0].startswith("block 1")
    for stage in stages[:-1]:  # a pixel's attention to the slots is a distribution
        np.testing.assert_allclose(stage.mask_logits.exp().sum(0), 1, atol=1e-3)
    slot = int(stages[0].mask_logits.argmax(0)[0, 0])
    picture = draw_cluster_viewer(image, stages, CATEGORIES, names, slot, long_side=64)
    assert picture.shape[1] >= 64 * (len(stages) + 1)
    assert (picture == cluster_color(slot)).all(-1).any()


def test_heat_rises() -> None:
    colors = heat(np.linspace(-1, 2, 50)).astype(int).sum(1)
    assert (np.diff(colors) >= 0).all()
    assert heat(np.zeros((2, 3))).shape == (2, 3, 3)

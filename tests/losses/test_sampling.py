"""Which pixels are drawn, and how often."""

from __future__ import annotations

import pytest
import torch

from kmax.losses.sampling import draw_pixels, log_rarity, sample_feature
from kmax.losses.semantic import target_stride


def test_pixels_are_distinct_and_void_comes_last() -> None:
    torch.manual_seed(0)
    segment_map = torch.randint(-1, 3, (2, 200))
    rarity = log_rarity(segment_map, 3)
    labeled = int((segment_map >= 0).sum(1).min())
    few = draw_pixels(rarity, 2.0, labeled)
    assert few.shape == (2, labeled)
    assert (segment_map.gather(1, few)[(segment_map >= 0).sum(1) == labeled] >= 0).all()
    for row in draw_pixels(rarity, 1.5, 10**6):
        assert sorted(row.tolist()) == list(range(200))


@pytest.mark.parametrize(("temperature", "share"), [(0.0, 0.1), (1.0, 0.5), (2.0, 0.9)])
def test_small_segments_are_drawn_more_often(temperature: float, share: float) -> None:
    torch.manual_seed(0)
    segment_map = torch.ones(4000, 200, dtype=torch.int64)
    segment_map[:, :20] = 0  # a tenth of the pixels: share = a · a^−τ / Σ
    drawn = draw_pixels(log_rarity(segment_map, 2), temperature, 1)
    assert (drawn < 20).double().mean().item() == pytest.approx(share, abs=0.03)


def test_a_draw_without_any_segment() -> None:
    drawn = draw_pixels(log_rarity(torch.full((1, 50), -1), 1), 1.5, 20)
    assert len(drawn.unique()) == 20


@pytest.mark.parametrize(("size", "coarse"), [((17, 33), (5, 9)), ((16, 32), (4, 8)), ((9, 9), (1, 1))])
def test_sampling_a_coarse_feature_is_resizing_it_and_gathering(size: tuple[int, int], coarse: tuple[int, int]) -> None:
    torch.manual_seed(0)
    feature = torch.randn(2, 3, *coarse, dtype=torch.float64)
    index = torch.randint(size[0] * size[1], (2, 40))
    resized = torch.nn.functional.interpolate(feature, size, mode="bilinear", align_corners=size[1] % 2 == 1)
    expected = sample_feature(resized, index, size)
    torch.testing.assert_close(sample_feature(feature, index, size), expected)
    torch.use_deterministic_algorithms(True)
    try:
        torch.testing.assert_close(sample_feature(feature, index, size), expected)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("target", "logits", "stride"),
    [((33, 65), (33, 65), 1), ((33, 65), (5, 9), 8), ((32, 64), (4, 8), 8), ((23, 25), (3, 4), 8), ((9, 9), (2, 2), 8)],
)
def test_target_stride(target: tuple[int, int], logits: tuple[int, int], stride: int) -> None:
    assert target_stride(target, logits) == stride

"""Bars and confusion matrices: lengths, shades, many and long names."""

from __future__ import annotations

import numpy as np
import pytest

from kmax.categories import load_categories
from kmax.visualization import draw_bars, draw_confusion


def longest_run(row: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((row == color).all(-1).sum())


def test_bars_are_as_long_as_their_values() -> None:
    colors = {"a": (200, 0, 0), "b": (0, 200, 0), "c": (0, 0, 200)}
    picture = draw_bars({"a": 100.0, "b": 50.0, "c": 0.0}, "PQ", colors)
    length = {name: max(longest_run(row, color) for row in picture) for name, color in colors.items()}
    assert abs(length["a"] - 2 * length["b"]) <= 2
    assert 1 <= length["c"] <= 3  # still visible
    assert length["a"] > 400


def test_all_of_cocos_classes_fit() -> None:
    names = load_categories("coco").names
    bars = draw_bars(dict.fromkeys(names, 33.3), "PQ")
    assert bars.shape[0] > 15 * len(names)
    confusion = draw_confusion(np.eye(len(names)), names, "Pixels")
    assert confusion.shape[0] > 10 * len(names)
    assert (bars[:, -1] == 255).all()  # nothing is cut at the edge
    assert (confusion[:, -1] == 255).all()


def test_shades_are_shares_of_rows() -> None:
    counts = np.array([[30, 10, 0], [0, 0, 0]])
    picture = draw_confusion(counts, ["one", "two", "three"], "", numbers=False)
    blue = (picture == (36, 84, 160)).all(-1)
    assert not blue.any()  # no cell holds all of its row
    full = draw_confusion(np.array([[40, 0, 0], [0, 7, 0]]), ["one", "two", "three"], "", numbers=False)
    cells = (full == (36, 84, 160)).all(-1)
    rows, columns = np.nonzero(cells.any(1))[0], np.nonzero(cells.any(0))[0]
    assert len(rows) == len(columns) == 30  # two cells of 16 pixels without their grid lines, on a diagonal
    assert not (cells[rows[0]] & cells[rows[-1]]).any()


@pytest.mark.parametrize("name", ["x" * 300, "", "Ωßé"])
def test_any_name_is_drawn(name: str) -> None:
    assert draw_bars({name: 5.0}, name).shape[1] == 760
    assert draw_confusion(np.ones((2, 2)), [name[:40], "b"], name[:40]).dtype == np.uint8


def test_columns_may_have_names_of_their_own() -> None:
    counts = np.array([[3, 1, 0]])
    picture = draw_confusion(counts, ["a"], "", column_names=["a", "b", "c"])
    assert picture.shape[1] >= 3 * 40
    other = draw_confusion(counts, ["a"], "", column_names=["a", "b", "d"])
    assert picture.shape == other.shape
    assert (picture != other).any()

"""Names in any script are drawn, or replaced by ids; never boxes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import features

from kmax.categories import Categories, Category
from kmax.visualization import draw_bars, draw_confusion, fonts, legible_names
from kmax.visualization.fonts import font, legible

IN_MATPLOTLIB = ["Straße", "Bäume", "дорога", "δρόμος", "cat [/x]", "żółw → 5 €"]
NOWHERE = "\U0001b000\U0001b001"  # hentaigana


def categories(*names: str) -> Categories:
    return Categories("own", tuple(Category(i + 7, name, True, (9, 9, 9)) for i, name in enumerate(names)))


@pytest.mark.parametrize("name", IN_MATPLOTLIB)
def test_a_font_that_has_the_name_is_found(name: str) -> None:
    pytest.importorskip("matplotlib")
    assert legible(name)
    assert legible_names(categories(name)) == [name]
    box = bytes(font(16, name).getmask("\U0010fffe"))
    assert all(bytes(font(16, name).getmask(c)) != box for c in name if not c.isspace())


def test_what_no_font_has_becomes_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_fonts", lambda: ("",))
    fonts._font_with.cache_clear()
    try:
        assert legible_names(categories("cat", "дорога", NOWHERE)) == ["cat", "id 8", "id 9"]
    finally:
        fonts._font_with.cache_clear()


def test_names_that_occur_twice_are_told_apart() -> None:
    assert legible_names(categories("cat", "dog", "cat")) == ["cat (7)", "dog", "cat (9)"]


def test_scripts_from_right_to_left_need_a_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    assert not legible("שלום")
    assert not legible("line\nbreak")


@pytest.mark.parametrize("name", [*IN_MATPLOTLIB, NOWHERE, "שלום", ""])
def test_charts_take_any_name(name: str) -> None:
    bars = draw_bars({name: 50.0, "cat": 20.0}, name)
    matrix = draw_confusion(np.eye(2), [name, "cat"], name)
    assert (bars[:, -1] == 255).all()
    assert (matrix[:, -1] == 255).all()

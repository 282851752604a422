"""The gallery: the worst images in order, whatever the batches and ranks; nothing foreign is markup."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kmax.callbacks import Gallery
from kmax.categories import Categories, Category
from kmax.metrics import image_quality
from kmax.structures import Batch, PanopticMap, Sample, Segment

CATEGORIES = Categories(
    "own", (Category(1, "<b>cat</b>", True, (200, 30, 30)), Category(2, "grass", False, (3, 90, 3)))
)


def case(number: int, name: str = "") -> tuple[Sample, PanopticMap]:
    """A cat of which the prediction covers `number` of 20 columns, on grass that is found entirely for even numbers."""
    truth, predicted = np.full((30, 60), 2, np.int32), np.zeros((30, 60), np.int32)
    truth[:, :20] = 1
    predicted[:, :number] = 5
    segments = [Segment(5, 0)] if number else []
    if number % 2 == 0:
        predicted[:, 20:] = 6
        segments.append(Segment(6, 1))
    image = np.random.default_rng(number).integers(0, 256, (30, 60, 3), dtype=np.uint8)
    sample = Sample(image, truth, (Segment(1, 0), Segment(2, 1)), number, name or f"{number}.png")
    return sample, PanopticMap(torch.as_tensor(predicted), tuple(segments))


def show(folder: Path, cases: list[tuple[Sample, PanopticMap]], images: int, ranks: int = 1, batch: int = 2) -> str:
    """The page of `ranks` processes that share the cases; rank 0 joins last, as after a barrier."""
    path = folder / "gallery.html"
    module: Any = SimpleNamespace(categories=CATEGORIES)
    for rank in reversed(range(ranks)):
        own = cases[rank::ranks]
        trainer: Any = SimpleNamespace(
            global_rank=rank,
            world_size=ranks,
            is_global_zero=rank == 0,
            strategy=SimpleNamespace(barrier=lambda name: None),
        )
        gallery = Gallery(path, images, "<i>model</i> on own")
        gallery.on_validation_epoch_start(trainer, module)
        for start in range(0, len(own), batch):
            samples, predictions = zip(*own[start : start + batch], strict=True)
            taken = Batch(torch.zeros(1), torch.zeros(1), samples=tuple(samples))
            gallery.on_validation_batch_end(trainer, module, SimpleNamespace(panoptic=predictions), taken, start)
            assert len(gallery._worst) <= images  # memory is bounded
        gallery.on_validation_epoch_end(trainer, module)
    assert [file.name for file in folder.iterdir()] == ["gallery.html"]
    return path.read_text(encoding="utf-8")


def names(page: str) -> list[str]:
    return re.findall(r'<th scope="row" data-value="([^"]*)"', page)


def values(page: str, label: str) -> list[float]:
    return [float(v) for v in re.findall(rf'data-label="{label}" data-value="([^"]*)"', page)]


def test_the_worst_come_first_with_their_numbers(tmp_path: Path) -> None:
    cases = [case(number) for number in range(1, 21)]
    page = show(tmp_path, cases, images=5)
    worst = sorted((image_quality(p, s, 2).pq, str(s.image_id)) for s, p in cases)[:5]
    assert names(page) == [f"{key}.png" for _, key in worst]
    assert values(page, "PQ") == [pq for pq, _ in worst]
    assert "5 of 20 images" in page
    assert values(page, "missed") == [2] * 5  # a cat under half its size, and grass nobody found
    assert "missed: &lt;b&gt;cat&lt;/b&gt;, grass · false: &lt;b&gt;cat&lt;/b&gt;" in page


@pytest.mark.long
def test_ranks_and_batches_change_nothing(tmp_path: Path) -> None:
    cases = [case(number) for number in (9, 1, 17, 12, 3, 4, 15)]
    pages = []
    for number, (ranks, batch) in enumerate(((1, 1), (1, 3), (2, 2), (3, 1))):
        (tmp_path / str(number)).mkdir()
        pages.append(show(tmp_path / str(number), cases, 4, ranks, batch))
    (tmp_path / "back").mkdir()
    pages.append(show(tmp_path / "back", cases[::-1], 4))
    assert len(set(pages)) == 1


def test_names_are_text_and_pictures_are_inside(tmp_path: Path) -> None:
    page = show(tmp_path, [case(4, '<script>alert("x")</script>&\x1b.png')], images=3)
    assert "<script>alert" not in page
    assert "<i>model" not in page
    assert "<b>cat" not in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)  # nothing is loaded from elsewhere
    assert "default-src 'none'" in page
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == 4
    for data in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (560, 280)


def test_images_without_segments_have_no_quality(tmp_path: Path) -> None:
    truth, _ = case(3)
    void = Sample(truth.image, np.zeros_like(truth.segment_map), (), 1, "void.png")
    nothing = PanopticMap(torch.zeros(30, 60, dtype=torch.int32), ())
    page = show(tmp_path, [(void, nothing)], images=3)
    assert names(page) == []
    assert "No image has a segment" in page
    assert "0 of 1 images" in page


@pytest.mark.parametrize("columns", [0, 5, 11, 20])
def test_the_quality_of_an_image(columns: int) -> None:
    truth, prediction = case(columns)
    quality = image_quality(prediction, truth, 2)
    cat = columns / 20 if columns > 10 else 0.0
    grass = 1.0 if columns % 2 == 0 else 0.0
    assert quality.pq == pytest.approx(50 * (cat + grass))
    assert quality.tp == (columns > 10) + (columns % 2 == 0)

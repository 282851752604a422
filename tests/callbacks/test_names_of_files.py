"""Images with awkward ids and names: panels and predictions get files of their own that say whose they are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kmax.callbacks import Panels, PredictionWriter
from kmax.categories import load_categories
from kmax.names import flat_name
from kmax.structures import Batch, PanopticMap, Sample, Segment

CATEGORIES = load_categories("shapes")
LONG = "x" * 300


def batch(images: list[tuple[int | str, str]]) -> tuple[Batch, Any]:
    """Images by (id, file name), and a prediction for each that says by its segment's width which one it is."""
    samples, predictions = [], []
    for n, (image_id, name) in enumerate(images):
        picture, ids = np.zeros((8, 12, 3), np.uint8), np.zeros((8, 12), np.int32)
        ids[:, : n + 1] = 1
        segments = (Segment(1, 0),)
        samples.append(Sample(picture, ids, segments, image_id, name))
        predictions.append(PanopticMap(torch.from_numpy(ids), segments))
    outputs = SimpleNamespace(panoptic=predictions, clusters=[torch.zeros(2, 3, dtype=torch.int64)] * len(images))
    return Batch(torch.zeros(0), torch.zeros(0), samples=tuple(samples)), outputs


def validate(callback: Any, images: list[tuple[int | str, str]], rank: int = 0, ranks: int = 1) -> None:
    """What a trainer tells the callback in a validation of these images."""
    trainer = SimpleNamespace(
        is_global_zero=rank == 0, global_rank=rank, world_size=ranks, global_step=7, loggers=[],
        state=SimpleNamespace(fn="fit"), strategy=SimpleNamespace(barrier=lambda name: None),
    )  # fmt: skip
    module, (seen, outputs) = SimpleNamespace(categories=CATEGORIES), batch(images)
    callback.on_validation_epoch_start(trainer, module)
    callback.on_validation_batch_end(trainer, module, outputs, seen, 0)
    callback.on_validation_epoch_end(trainer, module)


def test_panels_take_any_id(tmp_path: Path) -> None:
    ids: list[int | str] = ["cam0/1", "cam0_1", LONG, "../up", "a:b", 5]
    validate(Panels(tmp_path / "panels", 10), [(image_id, "x.jpg") for image_id in ids])
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == sorted(
        f"step0000007-{flat_name(str(i))}.png" for i in ids
    )
    assert (tmp_path / "panels/step0000007-5.png").is_file()
    assert len(list((tmp_path / "panels").iterdir())) == len(ids), "none replaces another or lies elsewhere"


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["a.jpg", "b.png"], ["a.png", "b.png"]),
        (["train/a.jpg", "train/b.jpg"], ["a.png", "b.png"]),
        (["a/1.jpg", "b/1.jpg"], ["a/1.png", "b/1.png"]),
        (["x.jpg", "x.png", "x.jpg.png"], ["x.jpg.png", "x.png.png", None]),
        ([f"{LONG}.jpg", "../up.jpg"], [None, None]),
        (["a.jpg", "a.jpg"], [None, None]),
    ],
)
def test_predictions_are_named_after_their_images(tmp_path: Path, names: list[str], files: list[str | None]) -> None:
    writer = PredictionWriter(tmp_path / "out")
    half = len(names) // 2
    images: list[tuple[int | str, str]] = list(enumerate(names))
    other = PredictionWriter(tmp_path / "out")  # of a second rank, done before the first one joins
    validate(other, images[half:], rank=1, ranks=2)
    validate(writer, images[:half], ranks=2)
    content = json.loads((tmp_path / "out/panoptic.json").read_text())
    found = {entry["image_id"]: entry["file_name"] for entry in content["annotations"]}
    assert len(set(found.values())) == len(names)
    for n, expected in enumerate(files):
        assert expected in (None, found[n])
        width = n + 1 if n < half else n - half + 1
        ids = np.asarray(Image.open(tmp_path / "out/panoptic" / found[n]))[..., 0]
        assert (ids != 0).sum() == 8 * width, "the PNG is that of its image"
    written = {p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert written == {"panoptic.json", *(f"panoptic/{name}" for name in found.values())}

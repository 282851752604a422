"""`scripts/predict.py track=true`: the same ids in every file, also after a stop; and what is refused."""

from __future__ import annotations

import csv
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kmax.config.compose import compose_config
from kmax.data.shapes_film import ShapesFilm
from kmax.videos import write_video
from scripts.predict import predict

LOW = [f"inference.{n}" for n in ("thing_threshold=0", "stuff_threshold=0", "overlap=0", "pixel_threshold=0.02")]
"""Thresholds at which even a model that has learnt nothing finds segments."""


def call(checkpoint: Path, what: Path | str, output: Path, *overrides: str) -> int:
    arguments = [f"ckpt={checkpoint}", f"input='{what}'", f"output={output}", "device=cpu", "track=true", *LOW]
    return predict(compose_config(None, *arguments, *overrides, root="predict"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The frames of a film as files, whose names are in order only if numbers are read as numbers."""
    film = ShapesFilm(length=12, seed=1, size=(64, 80))
    (tmp_path / "images").mkdir()
    for index in range(len(film)):
        Image.fromarray(film[index].image).save(tmp_path / f"images/{index}.png")
    return tmp_path / "images"


def rows(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((output / "segments.csv").open()))


@pytest.mark.long
def test_ids_agree_in_every_file_and_a_stop_changes_nothing(
    tiny_checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    assert call(tiny_checkpoint, images, tmp_path / "whole", "batch_size=5") == 0
    for limit in (3, 4, 100):
        assert call(tiny_checkpoint, images, tmp_path / "parts", f"limit={limit}") == 0
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    content = json.loads((tmp_path / "whole/panoptic.json").read_text())
    listed = {(Path(e["file_name"]).stem, s["id"]) for e in content["annotations"] for s in e["segments_info"]}
    assert listed == {(row["image"], int(row["id"])) for row in rows(tmp_path / "whole")}
    for entry in content["annotations"]:
        drawn = np.asarray(Image.open(tmp_path / "whole/panoptic" / entry["file_name"])).astype(int) @ [1, 256, 65536]
        assert set(np.unique(drawn)) - {0} == {s["id"] for s in entry["segments_info"]}
    classes: dict[str, set[str]] = {}
    for row in rows(tmp_path / "whole"):
        classes.setdefault(row["id"], set()).add(row["class"])
    assert all(len(names) == 1 for names in classes.values())
    assert len(classes) < len(listed)  # some are in several frames


@pytest.mark.long
def test_frames_that_are_added_later_are_placed_by_their_number(
    tiny_checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    away = tmp_path / "2.png"
    (images / "2.png").rename(away)
    assert call(tiny_checkpoint, images, tmp_path / "out") == 0
    before = rows(tmp_path / "out")
    away.rename(images / "2.png")
    assert call(tiny_checkpoint, images, tmp_path / "out") == 0
    after = rows(tmp_path / "out")
    assert [row for row in after if row["image"] != "2"] == before
    ids = [row["id"] for row in after if row["image"] == "2"]
    assert ids
    assert len(set(ids)) == len(ids)


@pytest.mark.long
def test_one_video_lies_directly_in_its_folder(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    film = ShapesFilm(length=4, size=(64, 80))
    write_video([film[index].image for index in range(4)], Fraction(5), tmp_path / "street.mp4")
    monkeypatch.chdir(tmp_path)
    arguments = [f"ckpt={tiny_checkpoint}", "input=street.mp4", "device=cpu", "track=true", "scores=true", *LOW]
    assert predict(compose_config(None, *arguments, root="predict")) == 0
    assert predict(compose_config(None, *arguments, root="predict")) == 0
    out = tmp_path / "runs/predict/street.mp4"
    assert sorted(file.name for file in (out / "overlay").iterdir()) == [f"{n:06d}.jpg" for n in range(4)]
    assert (out / "video/street.mp4").is_file()
    assert {row["image"] for row in rows(out)} == {f"{n:06d}" for n in range(4)}


def test_ids_begin_anew_in_every_video(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    film = ShapesFilm(length=3, size=(64, 80))
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_video([film[index].image for index in range(3)], Fraction(5), tmp_path / f"in/{name}.mp4")
    assert call(tiny_checkpoint, tmp_path / "in", tmp_path / "out") == 0
    found = {name: [row["id"] for row in rows(tmp_path / "out") if row["image"][0] == name] for name in "ab"}
    assert found["a"] == found["b"]
    assert found["a"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["runtime=onnx"], "track=true compares pixel features, which runtime=onnx leaves out: choose runtime=torch"),
        (["outputs=[semantic,instances]"], r"track=true changes nothing in outputs=\[semantic,instances\]: add"),
        (["inference.flip=true"], "leave inference.flip, .scales and .pad out"),
        (["track=false", "tracking.memory=0.5"], "has no effect by itself: add track=true"),
        (["scores=true", "outputs=[panoptic]"], "scores=true writes on overlays: add overlay or video to outputs"),
        (["tracking.threshold=2"], "tracking.threshold=2.* must be at most 1"),
        (["tracking.forget_after=0"], "tracking.forget_after=0 must be at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, overrides: list[str], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        call(tiny_checkpoint, images, tmp_path / "out", *overrides)
    assert not (tmp_path / "out").exists()


def test_a_single_image_has_nothing_to_follow(tiny_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs a video, a camera or several images; 0\.png is one image"):
        call(tiny_checkpoint, images / "0.png", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_results_without_identities_are_not_continued_with_them(
    tiny_checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    assert call(tiny_checkpoint, images, tmp_path / "out", "track=false", "limit=1") == 0
    with pytest.raises(ValueError, match="holds predictions of tracking=None"):
        call(tiny_checkpoint, images, tmp_path / "out")

"""scripts/predict.py as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, run_python
from kmax.config.compose import compose_config
from kmax.data import ShapesDataset
from kmax.predict import sources
from kmax.videos import write_video
from scripts.predict import INTERRUPTED, UNREADABLE, predict

LOW = [f"inference.{n}" for n in ("thing_threshold=0", "stuff_threshold=0", "overlap=0", "pixel_threshold=0.02")]
"""Thresholds at which even a model that has learnt nothing finds segments."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    shapes = ShapesDataset(5, seed=9)
    for number in range(5):
        Image.fromarray(shapes[number].image).save(folder / f"{number}.png")
    return folder


def call(checkpoint: Path, what: Path | str, output: Path, *overrides: str) -> int:
    """The script in this process; its exit status."""
    arguments = [f"ckpt={checkpoint}", f"input='{what}'", f"output={output}", "device=cpu", *LOW, *overrides]
    return predict(compose_config(None, *arguments, root="predict"))


@pytest.mark.long
def test_everything_is_written_and_agrees(tiny_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outputs = "outputs=[overlay,panoptic,semantic,instances,segments]"
    assert call(tiny_checkpoint, photos, out, outputs, "batch_size=2") == 0
    for folder, suffix in (("overlay", "jpg"), ("panoptic", "png"), ("semantic", "png")):
        assert sorted(f.name for f in (out / folder).iterdir()) == [f"{n}.{suffix}" for n in range(5)]
        assert Image.open(out / folder / f"0.{suffix}").size == Image.open(photos / "0.png").size
    content = json.loads((out / "panoptic.json").read_text())
    rows = list(csv.DictReader((out / "segments.csv").open()))
    assert len(rows) == sum(len(entry["segments_info"]) for entry in content["annotations"]) > 0
    for entry in content["annotations"]:
        ids = np.asarray(Image.open(out / "panoptic" / entry["file_name"])).astype(np.int64) @ [1, 256, 65536]
        for segment in entry["segments_info"]:
            assert (ids == segment["id"]).sum() == segment["area"]
    assert json.loads((out / "instances.json").read_text())


@pytest.mark.long
def test_it_goes_on_where_it_stopped_and_skips_what_is_broken(
    tiny_checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (photos / "2.png").write_text("broken")
    assert call(tiny_checkpoint, photos, out, "limit=2") == 0
    before = {f: f.stat().st_mtime_ns for f in out.glob("*/*.*")}
    assert len(before) == 4  # overlay and panoptic
    assert call(tiny_checkpoint, photos, out, "batch_size=3") == UNREADABLE
    printed = capsys.readouterr()
    assert "2 new, 2 already there, 1 unreadable" in printed.out
    assert "2.png cannot be read as an image" in printed.err
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert len(json.loads((out / "panoptic.json").read_text())["annotations"]) == 4
    Image.new("RGB", (40, 30)).save(photos / "2.png")
    assert call(tiny_checkpoint, photos, out) == 0
    assert [e["image_id"] for e in json.loads((out / "panoptic.json").read_text())["annotations"]] == list(range(5))
    with pytest.raises(ValueError, match=r"inference\.overlap=0\.0, not 0\.5"):
        call(tiny_checkpoint, photos, out, "inference.overlap=0.5")


@pytest.mark.long
def test_a_video_becomes_a_video_of_its_overlays(tiny_checkpoint: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    video, out = tmp_path / "clip.avi", tmp_path / "out"
    frames = [np.full((49, 64, 3), 30 * n, np.uint8) for n in range(6)]
    write_video(frames, Fraction(5), video)
    assert call(tiny_checkpoint, video, out, "limit=4") == 0
    assert call(tiny_checkpoint, video, out) == 0
    with av.open(str(out / "video/clip.mp4")) as joined:
        shown = [frame.to_ndarray(format="rgb24") for frame in joined.decode(video=0)]
        assert joined.streams.video[0].average_rate == 5
    assert len(shown) == 6
    for number, frame in enumerate(shown):
        overlay = np.asarray(Image.open(out / f"overlay/{number:06d}.jpg"))[:48]
        assert np.abs(frame.astype(int) - overlay).mean() < 6
    assert call(tiny_checkpoint, video, tmp_path / "other", "outputs=[segments]") == 0
    assert sorted(f.name for f in (tmp_path / "other").iterdir()) == ["records.jsonl", "run.json", "segments.csv"]


@pytest.mark.long
def test_mistakes_get_one_sentence(tiny_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for overrides, sentence in (
        (("outputs=[masks]",), "outputs="),
        (("batch_size=0",), "batch_size=0"),
        (("inference.overlap=7",), "overlap=7"),
        (("size=[8,8]",), r"size=\[8,8\] must be at least 32"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call(tiny_checkpoint, photos, out, *overrides)
    assert not out.exists()
    result = run_python("scripts/predict.py", f"ckpt={tiny_checkpoint}", "input=/nowhere")
    assert result.returncode == 1
    assert "There is no file or folder /nowhere" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_an_interruption_loses_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    out, camera = tmp_path / "out", "webcam:lavfi:testsrc=size=96x64:rate=30"
    command = [sys.executable, "scripts/predict.py", f"ckpt={tiny_checkpoint}", f'input="{camera}"', f"output={out}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "device=cpu"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    records = out / "records.jsonl"
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if records.exists() and records.read_bytes().count(b"\n") >= 4:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == INTERRUPTED, errors[-2000:]
    assert "Interrupted" in errors
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert len(lines) >= 4
    annotations = json.loads((out / "panoptic.json").read_text())["annotations"]
    assert [f"webcam/{n:06d}.png" for n in range(len(lines))] == [entry["file_name"] for entry in annotations]
    for entry in annotations:
        Image.open(out / "panoptic" / entry["file_name"]).load()
    assert not list(out.rglob(".*"))  # nothing half-written
    arguments = [f"ckpt={tiny_checkpoint}", f'input="{camera}"', f"output={out}", "device=cpu", "limit=2"]
    assert predict(compose_config(None, *arguments, root="predict")) == 0
    assert len(json.loads((out / "panoptic.json").read_text())["annotations"]) == len(lines) + 2


@pytest.mark.long
def test_only_a_few_images_are_in_memory(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        Image.new("RGB", (40, 30), (6 * number, 20, 200)).save(tmp_path / f"{number:02d}.png")
    alive: weakref.WeakSet[Tracked] = weakref.WeakSet()
    most = 0

    def tracked(path: str) -> np.ndarray:
        nonlocal most
        image = sources_open(path).view(Tracked)
        alive.add(image)
        most = max(most, len(alive))
        return image

    sources_open = sources.open_image
    monkeypatch.setattr(sources, "open_image", tracked)
    assert call(tiny_checkpoint, tmp_path, tmp_path / "out", "batch_size=2", "num_workers=2") == 0
    assert len(list((tmp_path / "out/overlay").iterdir())) == 40
    assert 1 <= most <= 12  # read ahead 3, two batches of 2, written behind 3


class Tracked(np.ndarray):
    """An array that may be referred to weakly and counted."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # NumPy declares that arrays have none
    __eq__ = object.__eq__


def listed(output: Path) -> dict[str, str]:
    """PNG by image, as panoptic.json has them; every file is there."""
    content = json.loads((output / "panoptic.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    pngs = {names[entry["image_id"]]: entry["file_name"] for entry in content["annotations"]}
    assert len(names) == len(content["images"]) == len(set(pngs.values()))
    for png in pngs.values():
        Image.open(output / "panoptic" / png).load()
    return pngs


def picture(path: Path, width: int = 80) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, 60), (90, 20, 30)).save(path)


@pytest.mark.long
def test_every_picture_has_a_result_whatever_it_is_called(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """x.jpg, x.png and x.jpg.png; numbers that are equal; a clip beside its frames; the results inside the input."""
    pytest.importorskip("av", reason="PyAV is not installed")
    folder = tmp_path / "in"
    for name in ("x.jpg", "x.png", "x.jpg.png", "7.png", "007.png", "clip/000000.png", "deep/.x.png", "ü/ä b.png"):
        picture(folder / name)
    (folder / "._x.jpg").write_bytes(b"rubbish of another system")
    (folder / "notes.txt").write_text("no picture")
    write_video([np.zeros((60, 80, 3), np.uint8)] * 2, Fraction(10), folder / "clip.mp4")
    assert call(tiny_checkpoint, folder, folder / "results", "outputs=[panoptic]") == 0
    found = listed(folder / "results")
    assert sorted(found) == [
        *("007.png", "7.png", "clip.mp4#0", "clip.mp4#1", "clip/000000.png"),
        *("x.jpg", "x.jpg.png", "x.png", "ü/ä b.png"),
    ]
    assert call(tiny_checkpoint, folder, folder / "results", "outputs=[panoptic]") == 0
    assert listed(folder / "results") == found


@pytest.mark.long
def test_results_follow_what_is_there_now(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    picture(folder / "a.jpg")
    assert call(tiny_checkpoint, folder, out, "outputs=[panoptic]") == 0
    picture(folder / "a.png")
    assert call(tiny_checkpoint, folder, out, "outputs=[panoptic]") == 0
    assert listed(out) == {"a.jpg": "a.png", "a.png": "a.png.png"}  # the first keeps its name
    picture(folder / "a.jpg", width=99)
    (folder / "a.png").unlink()
    capsys.readouterr()
    assert call(tiny_checkpoint, folder, out, "outputs=[panoptic]") == 0
    printed = capsys.readouterr()
    assert "2 results deleted: their files are gone or have changed" in printed.err
    assert "1 new, 0 already there" in printed.out
    assert listed(out) == {"a.jpg": "a.png"}
    assert Image.open(out / "panoptic/a.png").size == (99, 60)
    assert sorted(f.name for f in (out / "panoptic").iterdir()) == ["a.png"]


@pytest.mark.long
def test_the_home_folder_and_numbers_are_paths(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    picture(tmp_path / "home/photos/a.png")
    picture(tmp_path / "cwd/2024/b.png")
    (tmp_path / "home/best.ckpt").write_bytes(tiny_checkpoint.read_bytes())
    assert call(Path("'~/best.ckpt'"), "~/photos", Path("'~/out'"), "outputs=[panoptic]") == 0
    assert listed(tmp_path / "home/out") == {"a.png": "a.png"}
    arguments = [f"ckpt={tiny_checkpoint}", "input=2024", "device=cpu", "outputs=[panoptic]"]
    assert predict(compose_config(None, *arguments, root="predict")) == 0
    assert listed(tmp_path / "cwd/runs/predict/2024") == {"b.png": "b.png"}
    assert not (tmp_path / "cwd/~").exists()

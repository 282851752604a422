"""scripts/demo.py: what the page computes, and the page itself in a real browser."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kmax.checkpoint.own import read_checkpoint, write_checkpoint
from kmax.config.compose import compose_config
from kmax.data import ShapesDataset
from kmax.demo.difference import COLOR, compare
from kmax.predict.predictor import Predictor
from kmax.structures import PanopticMap, Segment

pytest.importorskip("gradio", reason="gradio is not installed")
from scripts.demo import Demo, example_images, start_demo

LOW = {"thing_threshold": 0.0, "stuff_threshold": 0.0, "overlap": 0.0, "pixel_threshold": 0.02}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def demo(tiny_checkpoint: Path) -> Demo:
    return Demo(Predictor.from_checkpoint(tiny_checkpoint, device="cpu"), max_megapixels=0.1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(ShapesDataset(1, seed=3)[0].image).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_thresholds_and_clusters_need_one_pass(demo: Demo, photo: Path) -> None:
    calls: list[int] = []
    handle = demo.predictor.model.register_forward_hook(lambda *_: calls.append(1))
    opened = demo.open(str(photo), "photo.png")
    overlay, rows = demo.segments(opened, LOW)
    _, none = demo.segments(opened, {**LOW, "thing_threshold": 1.0, "stuff_threshold": 1.0})
    viewer = demo.clusters(opened, demo.main_query(opened))
    handle.remove()
    assert len(calls) == 1
    assert rows
    assert not none
    assert max(overlay.shape) == 896
    assert sum(float(str(row[4])) for row in rows) <= 100.5
    assert viewer.ndim == 3
    labels = opened.raw.content[-1].mask_logits.argmax(0)
    assert demo.query_at(opened, 0.0, 0.0) == labels[0, 0]
    assert demo.query_at(opened, 1.0, 1.0) == labels[-1, -1]


def test_what_is_no_image_is_named(demo: Demo, photo: Path) -> None:
    (photo.parent / "text.png").write_text("no image")
    (photo.parent / "cut.png").write_bytes(photo.read_bytes()[:2000])
    Image.new("RGB", (400, 300)).save(photo.parent / "large.png")
    for name, sentence in (("text.png", "not an image"), ("cut.png", "damaged"), ("large.png", "megapixels")):
        with pytest.raises(ValueError, match=rf"^{name} .*{sentence}"):
            demo.open(str(photo.parent / name), name)


def test_examples_are_drawn_or_read(demo: Demo, photo: Path) -> None:
    assert len(example_images(demo.predictor, None)) == 6
    assert [image.shape for image in example_images(demo.predictor, str(photo.parent))] == [
        np.asarray(Image.open(photo)).shape
    ]


def test_other_models_show_their_validation_images_where_they_are_on_disk(demo: Demo) -> None:
    own = replace(demo.predictor.categories, name="own")
    here = {"_target_": "kmax.data.ShapesDataset", "length": 3}
    nowhere = {
        "_target_": "kmax.data.CocoPanoptic",
        **dict.fromkeys(("image_folder", "annotation_folder", "annotation_file"), "none"),
    }
    for val, count in ((here, 3), (nowhere, 0), ({"_target_": "mine.Dataset"}, 0)):
        predictor: Any = SimpleNamespace(categories=own, dataset=SimpleNamespace(val=val))
        assert len(example_images(predictor, None)) == count


def test_files_to_download_are_cocos(demo: Demo, photo: Path) -> None:
    opened = demo.open(str(photo), "my photo.jpg")
    found = demo.panoptic(opened, LOW)
    mask, table = Path(demo.write_mask(opened, LOW)), Path(demo.write_json(opened, LOW))
    assert mask.name == "my photo-panoptic.png"
    ids = np.asarray(Image.open(mask)).astype(int) @ (1, 256, 65536)
    np.testing.assert_array_equal(ids, found.segment_map.numpy())
    content = json.loads(table.read_text())
    (annotation,) = content["annotations"]
    assert annotation["file_name"] == mask.name
    assert {s["id"]: s["area"] for s in annotation["segments_info"]} == {
        s.id: (ids == s.id).sum() for s in found.segments
    }
    assert content["info"]["inference"]["pixel_threshold"] == 0.02
    assert content["images"][0]["file_name"] == "my photo.jpg"


def halves(left: int, right: int) -> PanopticMap:
    """Two halves with these labels; −1 is void."""
    ids = torch.tensor([[1, 1, 2, 2]] * 4, dtype=torch.int32)
    segments = tuple(Segment(i + 1, label) for i, label in enumerate((left, right)) if label >= 0)
    for number, label in enumerate((left, right), 1):
        ids[ids == number] = number if label >= 0 else 0
    return PanopticMap(ids, segments)


def test_differences_are_of_classes_by_name(demo: Demo) -> None:
    own = demo.predictor.categories
    turned = replace(own, classes=own.classes[::-1])
    last = own.num_classes - 1
    same = compare((halves(0, 6), halves(last, last - 6)), (own, turned))  # the same names under other labels
    assert not same.differs.any()
    assert (same.segments, same.matched) == ((2, 2), 2)
    other = compare((halves(0, 6), halves(0, -1)), (own, own))
    assert other.differs.mean() == 0.5
    assert (other.segments, other.matched) == ((2, 1), 1)
    assert "A: 2 segments, B: 1, 1 of them match" in other.sentence
    assert "50.0 %" in other.sentence
    drawn = other.draw(np.full((8, 8, 3), 100, np.uint8))
    assert (drawn[:, :4] == 100).all()
    np.testing.assert_allclose(drawn[0, 7], 35 + 0.65 * np.array(COLOR), atol=1)


def test_two_settings_and_two_models_are_compared(demo: Demo, photo: Path, tiny_checkpoint: Path) -> None:
    both = Demo(demo.predictor, others=[Predictor.from_checkpoint(tiny_checkpoint, device="cpu")], names=["a", "b"])
    opened = both.open(str(photo), "photo.png")
    high = {**LOW, "thing_threshold": 1.0, "stuff_threshold": 1.0}
    pictures, sentence = both.compare(opened, (0, 0), (LOW, high))
    assert [picture.shape for picture in pictures] == [pictures[0].shape] * 3
    assert "B: 0, 0 of them match" in sentence
    assert not opened.others
    _, sentence = both.compare(opened, (0, 1), (LOW, LOW))  # the same weights twice
    assert "differs on 0.0 % of the pixels" in sentence
    assert list(opened.others) == [1]


def test_opacity_begins_at_the_image(demo: Demo, photo: Path) -> None:
    opened = demo.open(str(photo), "photo.png")
    pictures = [demo.overlay(opened, LOW, opacity).astype(int) for opacity in (0.0, 0.3, 1.0)]
    bare = np.asarray(Image.fromarray(opened.image).resize(pictures[0].shape[1::-1], Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(pictures[0], bare)
    assert np.abs(pictures[1] - bare).mean() < np.abs(pictures[2] - bare).mean()


@pytest.mark.long
def test_the_console_is_not_told_of_requests(tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config = compose_config(None, f"ckpt={tiny_checkpoint}", "device=cpu", f"compare={tiny_checkpoint}", root="demo")
    app, _ = start_demo(config, block=False)
    app.close()
    assert not [record for record in caplog.records if "HTTP" in record.getMessage()]


def test_without_a_checkpoint_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run `make demo` once, or give ckpt=PATH"):
        start_demo(compose_config(None, f"ckpt={tmp_path / 'none.ckpt'}", root="demo"))


@pytest.mark.long
def test_a_folder_from_a_hub_is_a_checkpoint_here_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model.safetensors", read_checkpoint(tiny_checkpoint))
    config = compose_config(None, f"ckpt={tmp_path}", "device=cpu", "port=null", root="demo")
    app, address = start_demo(config, block=False)
    app.close()
    assert address.startswith("http://127.0.0.1")


@pytest.fixture
def page(tiny_checkpoint: Path) -> Iterator[Any]:
    """The demo in Chromium; `page.hosts` are all hosts that the page has asked for anything."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    config = compose_config(None, f"ckpt={tiny_checkpoint}", "device=cpu", root="demo")
    app, address = start_demo(config, block=False)
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            page = browser.new_page(viewport={"width": 1400, "height": 1100})
            page.set_default_timeout(120_000)
            page.hosts = set()
            page.on("request", lambda request: page.hosts.add(request.url.split("/")[2].split(":")[0]))
            page.goto(address)
            page.wait_for_selector("#upload input[type=file]", state="attached")
            yield page
            browser.close()
    finally:
        app.close()


@pytest.mark.long
def test_a_visit_with_a_browser(page: Any, photo: Path, tmp_path: Path) -> None:
    page.set_input_files("#upload input[type=file]", str(photo))
    page.wait_for_selector("#overlay img")
    page.wait_for_selector("text=photo.png ·")
    thumbnail = "getComputedStyle(document.querySelector('#upload button')).backgroundImage.slice(0, 9)"
    page.wait_for_function(f"{thumbnail} == 'url(\"data'")  # in place of the invitation to upload
    for name, value in LOW.items():  # the untrained model is sure of nothing
        number = page.locator(f"#{name} input[type=number]")
        number.fill(str(value))
        number.press("Enter")
    page.wait_for_function("/thing|stuff/.test(document.querySelector('#table').innerText)")
    before = page.locator("#overlay img").get_attribute("src")
    slider = page.locator("#stuff_threshold input[type=range]")
    slider.focus()
    page.keyboard.press("End")
    page.locator("#thing_threshold input[type=range]").focus()
    page.keyboard.press("End")
    page.wait_for_function(f"document.querySelector('#overlay img').src != '{before}'")
    page.wait_for_function("!/thing|stuff/.test(document.querySelector('#table').innerText)")
    page.get_by_role("tab", name="clusters").click()
    page.wait_for_selector("#viewer img")
    page.screenshot(path=str(tmp_path / "page.png"))
    assert len(np.unique(np.asarray(Image.open(tmp_path / "page.png").convert("L")))) > 100  # a picture is there
    page.get_by_role("tab", name="segments").click()
    page.locator("#overlay img").click(position={"x": 5, "y": 5})  # … leads back to the clusters
    page.wait_for_selector("#viewer img", state="visible")
    before = page.locator("#viewer img").get_attribute("src")
    (tmp_path / "text.png").write_text("no image")
    page.set_input_files("#upload input[type=file]", str(tmp_path / "text.png"))
    page.wait_for_selector("text=text.png is not an image")
    page.wait_for_timeout(300)
    assert not [badge for badge in page.locator(".error").all() if badge.is_visible()]
    assert page.locator("#viewer img").get_attribute("src") == before  # what was there stays
    page.locator("#examples button").nth(2).click()
    page.wait_for_function(f"document.querySelector('#viewer img').src != '{before}'")
    page.get_by_role("tab", name="compare").click()
    page.wait_for_selector("#picture_difference img")
    for name, value in LOW.items():  # B keeps its thresholds, which an untrained model does not reach
        number = page.locator(f"#a_{name} input[type=number]")
        number.fill(str(value))
        number.press("Enter")
    page.wait_for_function(
        r"/A: [1-9]\d* segments, B: 0,.*differs/.test(document.querySelector('#sentence').innerText)"
    )
    page.get_by_role("tab", name="segments").click()
    for name, suffix in (("mask", ".png"), ("json", ".json")):
        with page.expect_download() as download:
            page.locator(f"#{name}").click()
        assert download.value.suggested_filename == f"example 3-panoptic{suffix}"
    before = page.locator("#overlay img").get_attribute("src")
    page.locator("#opacity input[type=range]").focus()
    page.keyboard.press("Home")
    page.wait_for_function(f"document.querySelector('#overlay img').src != '{before}'")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    boxes = [page.locator(f"#{name}").bounding_box() for name in ("upload", "original", "overlay", "thresholds")]
    assert all(above["y"] < below["y"] for above, below in pairwise(boxes))
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
    assert page.hosts == {"127.0.0.1"}  # nothing is asked for elsewhere

"""scripts/demo.py: what the page computes, and the page itself in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kmax.checkpoint.own import read_checkpoint, write_checkpoint
from kmax.config.compose import compose_config
from kmax.data import ShapesDataset
from kmax.predict.predictor import Predictor

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
    (tmp_path / "text.png").write_text("no image")
    page.set_input_files("#upload input[type=file]", str(tmp_path / "text.png"))
    page.wait_for_selector("text=text.png is not an image")
    before = page.locator("#viewer img").get_attribute("src")
    page.locator("#examples button").nth(2).click()
    page.wait_for_function(f"document.querySelector('#viewer img').src != '{before}'")
    assert page.hosts == {"127.0.0.1"}  # nothing is asked for elsewhere

"""The page of the demo, made with gradio: its parts, and what happens when somebody uses them."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from kmax.console import plain
from kmax.demo.session import LONG_SIDE, Demo, Opened, thumbnail
from kmax.visualization import fit_image
from kmax.visualization.panoptic import OPACITY

COLUMNS = ["", "class", "kind", "score", "area %", "x", "y", "width", "height"]
SLIDERS = {
    "thing_threshold": "least class probability of a thing",
    "stuff_threshold": "least class probability of stuff",
    "overlap": "least part of a mask that is still free",
    "pixel_threshold": "least mask probability of a pixel",
}
LOWER = ("thing_threshold", "stuff_threshold")  # halved on side B, so that two settings of one model differ at first
STYLE = Path(__file__).with_name("page.css")
CLICK = "() => setTimeout(() => document.querySelector('#{0} a, a#{0}, #{0} button, button#{0}')?.click(), 200)"
"""A download that starts as soon as its file is written: a click on the hidden button that holds it."""


@dataclass(frozen=True)
class Controls:
    """The column at the left."""

    upload: gr.File
    shown: gr.HTML
    examples: gr.Dataset
    sliders: list[gr.Slider]
    reset: gr.Button


@dataclass(frozen=True)
class Segments:
    """The first tab: the original beside the overlay, the table, and two files."""

    tab: gr.Tab
    original: gr.Image
    overlay: gr.Image
    opacity: gr.Slider
    table: gr.Dataframe
    mask: tuple[gr.Button, gr.DownloadButton]
    json: tuple[gr.Button, gr.DownloadButton]


@dataclass(frozen=True)
class Clusters:
    """The second tab: one query on its way through the layers."""

    tab: gr.Tab
    query: gr.Slider
    viewer: gr.Image


@dataclass(frozen=True)
class Compare:
    """The third tab: two models, or two sets of thresholds, and where they differ."""

    tab: gr.Tab
    models: list[gr.Dropdown]
    sliders: list[gr.Slider]
    pictures: list[gr.Image]
    sentence: gr.Markdown


def build_app(demo: Demo, examples: Sequence[np.ndarray]) -> gr.Blocks:
    """The page: image and thresholds on the left, three tabs of results on the right."""
    paths = demo.save(examples)
    app: gr.Blocks
    with gr.Blocks(title="kMaX-DeepLab", analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        gr.Markdown("## Panoptic segmentation with k-means mask transformers")
        opened = gr.State(None, time_to_live=3600)
        number, current = gr.State(0), gr.State("segments")  # of the opened image, whose change the tabs follow
        with gr.Row(elem_id="page"):
            with gr.Column(scale=1, min_width=280, elem_id="controls"):
                controls = _controls(demo, paths)
            with gr.Column(scale=3, min_width=320, elem_id="results"), gr.Tabs() as tabs:
                segments, clusters, compare = _segments(), _clusters(demo), _compare(demo)
        parts = (controls, segments, clusters, compare)
        handlers = _Handlers(demo, paths)
        _connect_image(handlers, opened, number, current, *parts)
        _connect_segments(handlers, opened, tabs, *parts)
        _connect_compare(handlers, opened, current, *parts)
    return app


def _controls(demo: Demo, paths: Sequence[str]) -> Controls:
    upload = gr.File(label="image", file_types=["image"], height=150, elem_id="upload")
    shown = gr.HTML("", elem_id="shown")
    examples = gr.Dataset(
        components=[gr.Image(render=False)],
        samples=[[path] for path in paths],
        type="index",
        label="or take an example",
        visible=bool(paths),
        elem_id="examples",
    )
    with gr.Column(elem_id="thresholds"):
        sliders = _sliders(demo, 0)
        reset = gr.Button("reset thresholds", size="sm")
    return Controls(upload, shown, examples, sliders, reset)


def _sliders(demo: Demo, model: int, prefix: str = "", lower: bool = False) -> list[gr.Slider]:
    """A slider per threshold, at what the model uses."""
    base = demo.predictors[model].inference
    return [
        gr.Slider(
            0,
            1,
            getattr(base, name) / (2 if lower and name in LOWER else 1),
            step=0.01,
            label=name,
            info=meaning,
            elem_id=f"{prefix}{name}",
        )
        for name, meaning in SLIDERS.items()
    ]


def _picture(meaning: str, name: str) -> gr.Image:
    """A picture under a line of text, since gradio's label would cover its corner."""
    with gr.Column(min_width=240):
        gr.Markdown(meaning)
        return gr.Image(
            interactive=False,
            show_label=False,
            buttons=["download", "fullscreen"],
            elem_id=name,
            elem_classes="picture",
            format="png",
            alt_text=meaning,
        )


def _segments() -> Segments:
    with gr.Tab("segments", id="segments") as tab:
        with gr.Row():
            original = _picture("The image", "original")
            overlay = _picture("Its segments: click to follow the query of a pixel", "overlay")
        opacity = gr.Slider(
            0, 1, OPACITY, step=0.01, label="opacity", info="of the segments over the image", elem_id="opacity"
        )
        table = gr.Dataframe(
            headers=COLUMNS,
            datatype=["html", "str", "str", "number", "number", "number", "number", "number", "number"],
            interactive=False,
            label="segments",
            elem_id="table",
        )
        with gr.Row():
            mask, json = _download("mask", "download mask (PNG)"), _download("json", "download segments (JSON)")
    return Segments(tab, original, overlay, opacity, table, mask, json)


def _download(name: str, text: str) -> tuple[gr.Button, gr.DownloadButton]:
    """A button, and a hidden one that gets the file when the first is pressed."""
    button = gr.Button(text, size="sm", min_width=150, elem_id=name)
    return button, gr.DownloadButton(text, visible="hidden", elem_id=f"{name}_file")


def _clusters(demo: Demo) -> Clusters:
    with gr.Tab("clusters", id="clusters") as tab:
        query = gr.Slider(0, demo.predictor.num_queries - 1, 0, step=1, label="query", elem_id="query")
        viewer = _picture("How clusters form from layer to layer", "viewer")
    return Clusters(tab, query, viewer)


def _compare(demo: Demo) -> Compare:
    several = len(demo.predictors) > 1
    choices = [(plain(name), number) for number, name in enumerate(demo.names)]
    models: list[gr.Dropdown] = []
    sliders: list[gr.Slider] = []
    with gr.Tab("compare", id="compare") as tab:
        sentence = gr.Markdown("Open an image to compare two settings of it.", elem_id="sentence")
        with gr.Row():
            pictures = [_picture("A", "picture_a"), _picture("B", "picture_b")]
            pictures.append(_picture("Where the classes differ", "picture_difference"))
        with gr.Row():
            for number, side in enumerate("AB"):
                model = number if several else 0
                with gr.Column(min_width=260):
                    label = f"checkpoint of {side}"
                    models.append(gr.Dropdown(choices, value=model, label=label, visible=several, filterable=False))
                    sliders += _sliders(demo, model, f"{side.lower()}_", lower=side == "B" and not several)
    return Compare(tab, models, sliders, pictures, sentence)


class _Handlers:
    """What the page calls; results in the order of the outputs. A user's mistake is told and changes nothing."""

    def __init__(self, demo: Demo, paths: Sequence[str]) -> None:
        self.demo, self.paths = demo, paths
        self.numbers = itertools.count(1)

    def open_upload(self, path: str, *values: float) -> tuple[object, ...]:
        return self._start(path, Path(path).name, values)

    def open_example(self, number: int, *values: float) -> tuple[object, ...]:
        return self._start(self.paths[number], f"example {number + 1}", values)

    def _start(self, path: str, name: str, values: Sequence[float]) -> tuple[object, ...]:
        try:
            state = self.demo.open(path, name)
        except ValueError as error:
            gr.Warning(html.escape(plain(error)), title="This image cannot be opened")
            return (gr.skip(),) * 7
        height, width = state.image.shape[:2]
        note = (
            f"<style>#upload button {{ background-image: url('{thumbnail(state.image)}') }} "
            f"#upload [data-testid=upload-text] {{ visibility: hidden }}</style>"
            f"{html.escape(plain(name))} · {width} × {height} pixels"
        )
        original = fit_image(state.image, LONG_SIDE)
        query = self.demo.main_query(state)
        return (state, next(self.numbers), note, original, *self.segments(state, *values), query)

    def segments(self, state: Opened | None, opacity: float, *values: float) -> tuple[object, object]:
        if state is None:
            return None, []
        _, rows = self.demo.segments(state, thresholds(values))
        return self.demo.overlay(state, thresholds(values), opacity), rows

    def overlay(self, state: Opened | None, opacity: float, *values: float) -> object:
        return None if state is None else self.demo.overlay(state, thresholds(values), opacity)

    def clusters(self, state: Opened | None, number: int) -> object:
        return None if state is None else self.demo.clusters(state, int(number))

    def follow(self, state: Opened | None, picture: np.ndarray, event: gr.SelectData) -> tuple[object, object]:
        if state is None:
            return gr.skip(), gr.skip()
        x, y = event.index
        return self.demo.query_at(state, x / picture.shape[1], y / picture.shape[0]), gr.Tabs(selected="clusters")

    def write(self, make: Callable[[Opened, dict[str, float]], str]) -> Callable[..., object]:
        """A handler that writes a file of the opened image with `make`."""

        def written(state: Opened | None, *values: float) -> object:
            if state is None:
                gr.Info("Open an image first: then there is something to download.")
                return gr.skip()
            return make(state, thresholds(values))

        return written

    def compare(
        self, state: Opened | None, current: str, first: int, second: int, *values: float
    ) -> tuple[object, ...]:
        if state is None or current != "compare":
            return (gr.skip(),) * 4
        sides = thresholds(values[: len(SLIDERS)]), thresholds(values[len(SLIDERS) :])
        pictures, sentence = self.demo.compare(state, (first, second), sides)
        return (*pictures, sentence)

    def defaults(self, model: int) -> list[float]:
        """The thresholds of a model."""
        return [getattr(self.demo.predictors[model].inference, name) for name in SLIDERS]


def thresholds(values: Sequence[float]) -> dict[str, float]:
    """The values of the sliders by name."""
    return dict(zip(SLIDERS, values, strict=True))


def _connect_image(
    handlers: _Handlers,
    opened: gr.State,
    number: gr.State,
    current: gr.State,
    controls: Controls,
    segments: Segments,
    clusters: Clusters,
    compare: Compare,
) -> None:
    """An image arrives: every tab follows."""
    results = [opened, number, controls.shown, segments.original, segments.overlay, segments.table, clusters.query]
    view: dict[str, Any] = {
        "fn": handlers.clusters,
        "inputs": [opened, clusters.query],
        "outputs": clusters.viewer,
    }
    also: dict[str, Any] = {
        "fn": handlers.compare,
        "inputs": [opened, current, *compare.models, *compare.sliders],
        "outputs": [*compare.pictures, compare.sentence],
    }
    values = [segments.opacity, *controls.sliders]
    arrived = controls.upload.upload(handlers.open_upload, [controls.upload, *values], results)
    arrived.then(lambda: None, None, controls.upload)  # ready for the next file, even if this one failed
    controls.examples.click(handlers.open_example, [controls.examples, *values], results)
    number.change(**view)
    number.change(**also)


def _connect_segments(
    handlers: _Handlers,
    opened: gr.State,
    tabs: gr.Tabs,
    controls: Controls,
    segments: Segments,
    clusters: Clusters,
    _: Compare,
) -> None:
    """Thresholds, opacity, downloads, and a click that leads to the clusters."""
    inputs = [opened, segments.opacity, *controls.sliders]
    change: dict[str, Any] = {
        "fn": handlers.segments,
        "inputs": inputs,
        "outputs": [segments.overlay, segments.table],
    }
    gr.on([slider.input for slider in controls.sliders], **change, trigger_mode="always_last")
    controls.reset.click(lambda: handlers.defaults(0), None, controls.sliders).then(**change)
    segments.opacity.input(
        handlers.overlay, inputs, segments.overlay, trigger_mode="always_last", show_progress="hidden"
    )
    writers = ((segments.mask, handlers.demo.write_mask), (segments.json, handlers.demo.write_json))
    for (button, file), make in writers:
        written = button.click(handlers.write(make), [opened, *controls.sliders], file)
        written.success(None, None, None, js=CLICK.format(file.elem_id))
    view: dict[str, Any] = {"fn": handlers.clusters, "inputs": [opened, clusters.query], "outputs": clusters.viewer}
    clusters.query.input(**view, trigger_mode="always_last")
    for picture in (segments.original, segments.overlay):
        picture.select(handlers.follow, [opened, picture], [clusters.query, tabs]).success(**view)


def _connect_compare(
    handlers: _Handlers,
    opened: gr.State,
    current: gr.State,
    _: Controls,
    segments: Segments,
    clusters: Clusters,
    compare: Compare,
) -> None:
    """Comparing runs only while its tab is open."""
    change: dict[str, Any] = {
        "fn": handlers.compare,
        "inputs": [opened, current, *compare.models, *compare.sliders],
        "outputs": [*compare.pictures, compare.sentence],
    }
    for name, tab in (("segments", segments.tab), ("clusters", clusters.tab)):
        tab.select(lambda name=name: name, None, current)
    compare.tab.select(lambda: "compare", None, current).then(**change)
    gr.on([slider.input for slider in compare.sliders], **change, trigger_mode="always_last")
    for number, model in enumerate(compare.models):
        own = compare.sliders[len(SLIDERS) * number : len(SLIDERS) * (number + 1)]
        model.input(handlers.defaults, model, own).then(**change)

"""The page of the demo, made with gradio: its parts put together, and what happens when somebody uses them."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from kmax.console import plain
from kmax.demo.parts import (
    SLIDERS,
    Clusters,
    Compare,
    Controls,
    Segments,
    clusters_part,
    compare_part,
    controls_part,
    segments_part,
)
from kmax.demo.session import LONG_SIDE, Demo, Opened, thumbnail
from kmax.visualization import fit_image

STYLE = Path(__file__).with_name("page.css")
CLICK = "() => setTimeout(() => document.querySelector('#{0} a, a#{0}, #{0} button, button#{0}')?.click(), 200)"
"""A download that starts as soon as its file is written: a click on the hidden button that holds it."""


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
                controls = controls_part(demo, paths)
            with gr.Column(scale=3, min_width=320, elem_id="results"), gr.Tabs() as tabs:
                segments, clusters, compare = segments_part(), clusters_part(demo), compare_part(demo)
        parts = (controls, segments, clusters, compare)
        handlers = _Handlers(demo, paths)
        _connect_image(handlers, opened, number, current, *parts)
        _connect_segments(handlers, opened, tabs, *parts)
        _connect_compare(handlers, opened, current, *parts)
    return app


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

"""The parts of the page: what is seen, without what happens when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from kmax.console import plain
from kmax.demo.session import Demo
from kmax.visualization.panoptic import OPACITY

COLUMNS = ["", "class", "kind", "score", "area %", "x", "y", "width", "height"]
SLIDERS = {
    "thing_threshold": "least class probability of a thing",
    "stuff_threshold": "least class probability of stuff",
    "overlap": "least part of a mask that is still free",
    "pixel_threshold": "least mask probability of a pixel",
}
LOWER = ("thing_threshold", "stuff_threshold")  # halved on side B, so that two settings of one model differ at first


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


def controls_part(demo: Demo, paths: Sequence[str]) -> Controls:
    """The upload, the examples and the thresholds."""
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


def segments_part() -> Segments:
    """The tab of the segments."""
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


def clusters_part(demo: Demo) -> Clusters:
    """The tab of the clusters."""
    with gr.Tab("clusters", id="clusters") as tab:
        query = gr.Slider(0, demo.predictor.num_queries - 1, 0, step=1, label="query", elem_id="query")
        viewer = _picture("How clusters form from layer to layer", "viewer")
    return Clusters(tab, query, viewer)


def compare_part(demo: Demo) -> Compare:
    """The tab that compares."""
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

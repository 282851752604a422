"""Try a checkpoint in the browser: `python scripts/demo.py [ckpt=best.ckpt]`, then open the address it prints.

Upload an image or take one of the examples; move the thresholds, which does not run the network again; click into the
result to follow one query through the layers. Nothing is downloaded, nobody else can connect, nothing is sent.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig
from PIL import Image

from kmax.checkpoint.published import suggestion
from kmax.config.compose import command_line, read_options, register
from kmax.config.explain import run_or_explain
from kmax.config.options import DemoOptions
from kmax.config.pretrained import checkpoint_path
from kmax.data import ShapesDataset
from kmax.images import open_image
from kmax.predict.predictor import Predictor, RawPrediction
from kmax.predict.sources import find_sources
from kmax.results import segments_info
from kmax.visualization import draw_cluster_viewer, draw_panoptic, fit_image, main_query, segment_colors

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read while gradio is imported
os.environ["HF_HUB_OFFLINE"] = "1"
try:
    import gradio as gr
except ImportError:
    gr = None  # type: ignore[assignment]

register()
COLUMNS = ["", "class", "kind", "score", "area %", "x", "y", "width", "height"]
LONG_SIDE = 896  # of the result in pixels
SLIDERS = {
    "thing_threshold": "least class probability of a thing",
    "stuff_threshold": "least class probability of stuff",
    "overlap": "least part of a mask that is still free",
    "pixel_threshold": "least mask probability of a pixel",
}


@dataclass(frozen=True)
class Opened:
    """An image that went through the network once: `raw` is all that the sliders and the cluster viewer need."""

    image: np.ndarray
    raw: RawPrediction


class Demo:
    """The computations of the app. Uploads and examples are in `folder`, which is deleted with the object."""

    def __init__(self, predictor: Predictor, max_megapixels: float = 40) -> None:
        self.predictor, self.max_megapixels = predictor, max_megapixels
        self.folder = tempfile.TemporaryDirectory(prefix="kmax-demo-")

    def save(self, images: list[np.ndarray]) -> list[str]:
        """Write the examples and return their paths."""
        paths = [f"{self.folder.name}/example-{number}.png" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(path)
        return paths

    def open(self, path: str, name: str) -> Opened:
        """Read an image and run the network on it.

        Raises:
            ValueError: no image, or too large; the message calls it `name`.
        """
        try:
            with Image.open(path) as image:
                megapixels = image.width * image.height / 1e6
        except Exception:  # Pillow raises many types of exceptions for files that are not images
            raise ValueError(f"{name} is not an image that can be read: upload a JPEG, PNG, WebP, … file.") from None
        if megapixels > self.max_megapixels:
            raise ValueError(
                f"{name} has {megapixels:.0f} megapixels, more than {self.max_megapixels:g}: make it smaller."
            )
        try:
            array = open_image(path)
        except ValueError:
            raise ValueError(f"{name} is damaged and cannot be read: save it again.") from None
        return Opened(array, self.predictor.raw([array], all_stages=True)[0])

    def segments(self, opened: Opened, thresholds: dict[str, float]) -> tuple[np.ndarray, list[list[object]]]:
        """The overlay and the rows of the table, from the one pass of the network."""
        panoptic = self.predictor.finish(opened.raw, thresholds=thresholds).panoptic
        assert panoptic is not None, "panoptic is what finish makes unless told otherwise"
        categories = self.predictor.categories
        colors = segment_colors(panoptic.segments, categories)
        rows = []
        for entry, segment in zip(segments_info(panoptic, categories), panoptic.segments, strict=True):
            category = categories.classes[segment.label]
            chip = f'<span style="color:rgb{colors[segment.id]};font-size:1.4em;line-height:1">■</span>'
            area = 100 * entry["area"] / opened.image[..., 0].size
            kind = "thing" if category.is_thing else "stuff"
            rows.append([chip, category.name, kind, round(segment.score, 3), round(area, 1), *entry["bbox"]])
        return draw_panoptic(fit_image(opened.image, LONG_SIDE), panoptic, categories), rows

    def clusters(self, opened: Opened, query: int) -> np.ndarray:
        """The cluster viewer for one query."""
        stages = opened.raw.content
        names = self.predictor.stage_names
        return draw_cluster_viewer(opened.image, stages, self.predictor.categories, names, query, long_side=240)

    def main_query(self, opened: Opened) -> int:
        """The query that is shown first."""
        return main_query(opened.raw.content[-1])

    def query_at(self, opened: Opened, x: float, y: float) -> int:
        """The query that owns a point of the image; `x` and `y` in 0 … 1."""
        masks = opened.raw.content[-1].mask_logits
        row = min(int(y * masks.shape[1]), masks.shape[1] - 1)
        column = min(int(x * masks.shape[2]), masks.shape[2] - 1)
        return int(masks[:, row, column].argmax())


def picture(meaning: str, name: str, height: int | None = None) -> gr.Image:
    """A picture under a line of text, since gradio's label would cover its corner."""
    gr.Markdown(meaning)
    return gr.Image(
        interactive=False,
        show_label=False,
        buttons=["download", "fullscreen"],
        elem_id=name,
        height=height,
        format="png",
        alt_text=meaning,
    )


def build_app(demo: Demo, examples: list[np.ndarray]) -> gr.Blocks:
    """The page: input and thresholds on the left, results in two tabs on the right."""
    base, num_queries = demo.predictor.inference, demo.predictor.num_queries
    paths = demo.save(examples)
    app: gr.Blocks
    with gr.Blocks(title="kMaX-DeepLab", analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        gr.Markdown("## Panoptic segmentation with k-means mask transformers")
        opened = gr.State(None, time_to_live=3600)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                upload = gr.File(label="image", file_types=["image"], height=120, elem_id="upload")
                drawn = gr.Dataset(
                    components=[gr.Image(render=False)],
                    samples=[[path] for path in paths],
                    type="index",
                    label="or take an example",
                    visible=bool(examples),
                    elem_id="examples",
                )
                sliders = [
                    gr.Slider(0, 1, getattr(base, name), step=0.01, label=name, info=meaning, elem_id=name)
                    for name, meaning in SLIDERS.items()
                ]
                defaults = gr.Button("reset thresholds", size="sm")
            with gr.Column(scale=3), gr.Tabs() as tabs:
                with gr.Tab("segments", id="segments"):
                    overlay = picture("Click into the picture to follow the query of that pixel", "overlay", 560)
                    table = gr.Dataframe(
                        headers=COLUMNS,
                        datatype=["html", "str", "str", "number", "number", "number", "number", "number", "number"],
                        interactive=False,
                        label="segments",
                        elem_id="table",
                    )
                with gr.Tab("clusters", id="clusters"):
                    query = gr.Slider(0, num_queries - 1, 0, step=1, label="query", elem_id="query")
                    viewer = picture("How clusters form from layer to layer", "viewer")

        def segments(state: Opened | None, *values: float) -> tuple[object, object]:
            if state is None:
                return None, []
            return demo.segments(state, dict(zip(SLIDERS, values, strict=True)))

        def start(path: str, name: str, values: tuple[float, ...]) -> tuple[object, ...]:
            try:
                state = demo.open(path, name)
            except ValueError as error:
                raise gr.Error(str(error), print_exception=False) from None
            return (state, *segments(state, *values), demo.main_query(state))

        def open_upload(path: str, *values: float) -> tuple[object, ...]:
            return start(path, Path(path).name, values)

        def open_example(number: int, *values: float) -> tuple[object, ...]:
            return start(paths[number], f"example {number + 1}", values)

        def clusters(state: Opened | None, number: int) -> object:
            return None if state is None else demo.clusters(state, int(number))

        def follow(state: Opened | None, picture: np.ndarray, event: gr.SelectData) -> tuple[object, object]:
            if state is None:
                return gr.skip(), gr.skip()
            x, y = event.index
            return demo.query_at(state, x / picture.shape[1], y / picture.shape[0]), gr.Tabs(selected="clusters")

        results = [opened, overlay, table, query]
        view: dict[str, Any] = {"fn": clusters, "inputs": [opened, query], "outputs": viewer}
        arrived = upload.upload(open_upload, [upload, *sliders], results)
        arrived.success(**view)
        arrived.then(lambda: None, None, upload)  # ready for the next file, even if this one failed
        drawn.click(open_example, [drawn, *sliders], results).success(**view)
        gr.on([s.input for s in sliders], segments, [opened, *sliders], [overlay, table], trigger_mode="always_last")
        defaults.click(lambda: [getattr(base, name) for name in SLIDERS], None, sliders).then(
            segments, [opened, *sliders], [overlay, table]
        )
        query.input(**view, trigger_mode="always_last")
        overlay.select(follow, [opened, overlay], [query, tabs]).success(**view)
    return app


def example_images(predictor: Predictor, folder: str | None, count: int = 6) -> list[np.ndarray]:
    """Images of a folder, or drawn ones for a model of the built-in dataset, or none."""
    if folder:
        paths = [source.path for source in find_sources(folder) if source.kind == "image"]
        return [open_image(path) for path in paths[: 2 * count]]
    if predictor.categories.name != "shapes":
        return []
    shapes = ShapesDataset(count, seed=2)
    return [shapes[number].image for number in range(count)]


def start_demo(config: DictConfig, block: bool = True) -> tuple[gr.Blocks, str]:
    """Build the app and serve it; the app and its address. With `block` it returns when the server is stopped."""
    options = read_options(DemoOptions, config)
    if gr is None:
        raise ValueError("The demo needs gradio: pip install 'kmax-deeplab[demo]'.")
    ckpt = checkpoint_path(options.ckpt)
    if not ckpt.exists():
        raise FileNotFoundError(
            f"There is no checkpoint {options.ckpt}: run `make demo` once, or give ckpt=PATH or a name of the model "
            f"zoo{suggestion(options.ckpt)}."
        )
    predictor = Predictor.from_checkpoint(ckpt, options.device, options.size)
    demo = Demo(predictor, options.max_megapixels)
    os.environ["GRADIO_TEMP_DIR"] = demo.folder.name
    app = build_app(demo, example_images(predictor, options.examples))
    try:
        _, address, _ = app.launch(
            server_name=options.host,
            server_port=options.port,
            max_file_size=f"{options.max_upload_mb}mb",
            share=False,
            ssr_mode=False,
            quiet=True,
            footer_links=[],
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise ValueError(f"port={options.port} cannot be used ({error}): choose another, or port=null.") from error
    print(f"The demo of {options.ckpt} is at {address} (Ctrl-C ends it)", flush=True)
    if block:
        app.block_thread()
    return app, address


@hydra.main(config_path="../conf", config_name="demo", version_base="1.3")
def main(config: DictConfig) -> None:
    """The command line: a checkpoint in, a page out."""
    run_or_explain(start_demo, config)


if __name__ == "__main__":
    sys.argv = command_line(sys.argv, "demo", __doc__ or "")
    main()

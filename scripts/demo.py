"""Try a checkpoint in the browser: `python scripts/demo.py [ckpt=best.ckpt]`, then open the address it prints.

Upload an image or take one of the examples; move the thresholds, which does not run the network again; click into the
result to follow one query through the layers; compare two thresholds, or two checkpoints with `compare=other.ckpt`;
download the mask and its segments. Nothing is downloaded, nobody else can connect, nothing is sent.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

import hydra
import numpy as np
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from kmax.checkpoint.published import suggestion
from kmax.config.build import build_dataset
from kmax.config.compose import command_line, read_options, register
from kmax.config.explain import run_or_explain
from kmax.config.options import DemoOptions
from kmax.config.pretrained import checkpoint_path
from kmax.data import ShapesDataset
from kmax.demo.session import Demo
from kmax.images import open_image
from kmax.predict.predictor import Predictor
from kmax.predict.sources import find_sources

if TYPE_CHECKING:
    import gradio as gr

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read while gradio is imported
os.environ["HF_HUB_OFFLINE"] = "1"

register()


def example_images(predictor: Predictor, folder: str | None, count: int = 6) -> list[np.ndarray]:
    """Images of a folder; or drawn ones for a model of the built-in dataset; or the first validation images of the
    model's dataset where they are on disk; or none."""
    if folder:
        paths = [source.path for source in find_sources(folder) if source.kind == "image"]
        return [open_image(path) for path in paths[: 2 * count]]
    if predictor.categories.name == "shapes":
        shapes = ShapesDataset(count, seed=2)
        return [shapes[number].image for number in range(count)]
    try:
        dataset = build_dataset(predictor.dataset.val, predictor.categories)
        return [dataset[number].image for number in range(min(count, len(dataset)))]
    except (OSError, ValueError, InstantiationException):  # its files are elsewhere, which is no reason not to start
        return []


def load_predictor(ckpt: str, options: DemoOptions) -> Predictor:
    """The model of a checkpoint.

    Raises:
        FileNotFoundError, ValueError: there is none, or it cannot be used.
    """
    path = checkpoint_path(ckpt)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no checkpoint {ckpt}: run `make demo` once, or give ckpt=PATH or a name of the model "
            f"zoo{suggestion(ckpt)}."
        )
    return Predictor.from_checkpoint(path, options.device, options.size)


def start_demo(config: DictConfig, block: bool = True) -> tuple[gr.Blocks, str]:
    """Build the app and serve it; the app and its address. With `block` it returns when the server is stopped."""
    options = read_options(DemoOptions, config)
    try:
        from kmax.demo.page import STYLE, build_app
    except ModuleNotFoundError as error:
        raise ValueError(f"The demo needs {error.name}: pip install 'kmax-deeplab[demo]'.") from error
    names = [options.ckpt, *([options.compare] if options.compare else [])]
    predictor, *others = (load_predictor(name, options) for name in names)
    demo = Demo(predictor, options.max_megapixels, others, names)
    os.environ["GRADIO_TEMP_DIR"] = demo.folder.name
    logging.getLogger("httpx").setLevel(logging.WARNING)  # gradio asks itself whether it runs, and httpx tells
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
            css=STYLE.read_text(encoding="utf-8"),
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise ValueError(f"port={options.port} cannot be used ({error}): choose another, or port=null.") from error
    print(f"The demo of {' and '.join(names)} is at {address} (Ctrl-C ends it)", flush=True)
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

"""Export a trained model: `python scripts/export.py ckpt=best.ckpt format=onnx`.

    format     onnx · pt2 (torch.export) · aoti (compiled for this kind of machine; needs a C++ compiler)
    output     null: next to the checkpoint, with the format's suffix
    batch      dynamic, or a number of images
    size       null: the size that the checkpoint was trained with; or [H,W]
    pictures   a folder of images to compare with eager PyTorch on; null: drawn shapes
    count      how many of them
    postprocess  true: resizing and post-processing are inside; one picture in, segment map, labels and scores out

After the export both models run on the same images; the deviation of the logits and the number of identical panoptic
maps are printed. A deviation beyond `tolerance` in more than a tenth of them, or far beyond in any, is an error, and
no file is written. See docs/deployment.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig

from kmax.config.compose import command_line, read_options, register
from kmax.config.explain import run_or_explain
from kmax.config.options import ExportOptions
from kmax.config.trained import load_trained
from kmax.data import ShapesDataset
from kmax.files import walk_files
from kmax.images import IMAGE_SUFFIXES, open_image
from kmax.predict.complete import export_complete
from kmax.predict.export import FORMATS, export_model

register()


def read_images(folder: str | None, count: int) -> list[np.ndarray]:
    """`count` images (H, W, 3) uint8 RGB: the first of a folder by name, or drawn shapes.

    Raises:
        ValueError: fewer in the folder, or one that cannot be read.
    """
    if folder is None:
        return [sample.image for sample in map(ShapesDataset(count, seed=3).__getitem__, range(count))]
    files = [file for file in walk_files(Path(folder))[0] if file.suffix.lower() in IMAGE_SUFFIXES]
    if len(files) < count:
        raise ValueError(f"There are {len(files)} images in {folder}, not {count}: set count={len(files)} or fewer.")
    return [open_image(file) for file in files[:count]]


def export(config: DictConfig) -> Path:
    """Export as the configuration says, print what was compared, and return the file's path."""
    options = read_options(ExportOptions, config)
    trained = load_trained(options.ckpt)
    height, width = options.size or trained.options.dataset.size
    suffix = FORMATS.get(options.format, "")
    path = Path(options.output or Path(options.ckpt).with_suffix(suffix))
    images = read_images(options.pictures, options.count)
    if options.postprocess:
        maps = export_complete(trained, path, options.format, (height, width), images)
        print(
            f"identical to the Predictor on {maps.identical} of {maps.images} images ({maps.differing_pixels} pixels "
            f"differ)\ninput of any size, resized to {height}×{width} · {path} · {path.stat().st_size / 2**20:.1f} MiB"
        )
        return path
    parity = export_model(trained, path, options.format, (height, width), options.batch, images, options.tolerance)
    print(
        f"parity with eager on {parity.images} images · largest deviation {parity.deviation:.1e} · identical "
        f"panoptic maps {parity.identical}/{parity.images} ({parity.differing_pixels} pixels differ)\n"
        + (f"{parity.beyond} beyond the tolerance: see docs/deployment.md on ties\n" if parity.beyond else "")
        + f"input {height}×{width}, batch {options.batch} · {path} · {path.stat().st_size / 2**20:.1f} MiB"
    )
    return path


@hydra.main(config_path="../conf", config_name="export", version_base="1.3")
def main(config: DictConfig) -> None:
    """The command line: one checkpoint in, one file out."""
    run_or_explain(export, config)


if __name__ == "__main__":
    sys.argv = command_line(sys.argv, "export", __doc__ or "")
    main()

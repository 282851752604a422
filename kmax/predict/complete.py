"""A trained model as one file from picture to segments: resizing and post-processing are inside.

It takes `image` (H0, W0, 3) uint8 RGB of any size from 2×2 on and returns `segment_map` (H0, W0) int32, 0 = void, and
of its segments `segment_ids` (S,) int64, `segment_labels` (S,) int64 in 0 … K−1 and `segment_scores` (S,) float32. The
thresholds are those of the checkpoint, fixed when it is exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kmax.config.trained import TrainedModel
from kmax.files import replacing
from kmax.predict import traceable
from kmax.predict.export import ExportableModel, describe, quiet, write_onnx, write_pt2
from kmax.predict.predictor import Predictor

FORMATS = ("onnx", "pt2")
INPUTS = ("image",)
OUTPUTS = ("segment_map", "segment_ids", "segment_labels", "segment_scores")
LARGEST_SIDE = 2**14
TIE = 1e-3
"""The part of an image's pixels that may differ: those at a threshold."""

Run = Callable[[np.ndarray], list[np.ndarray]]


class CompleteModel(nn.Module):
    """From a picture to segments; `size` is the (H, W) of the network's input."""

    def __init__(self, trained: TrainedModel, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.size = ExportableModel(trained), size
        self.is_thing, self.thresholds = trained.categories.is_thing, trained.inference

    def forward(self, image: Tensor) -> traceable.Segments:
        """See the module's docstring."""
        content = traceable.content_size(traceable.lengths(image), self.size)
        fitted = traceable.resize_and_pad(image, content, self.size)
        classes, masks = self.network(fitted[None], content[None])
        return traceable.panoptic(
            classes[0].float(), masks[0].float(), self.is_thing, self.thresholds, self.size, content, image
        )


@dataclass(frozen=True)
class MapParity:
    """A complete model against `Predictor`: `images`, those with `identical` maps and labels, the pixels that differ in
    all of them, and the images `beyond` a part of `TIE` of their pixels or with other segments."""

    images: int
    identical: int
    differing_pixels: int
    beyond: int


def export_complete(
    trained: TrainedModel, path: str | Path, format: str, size: tuple[int, int], images: Iterable[np.ndarray]
) -> MapParity:
    """Export to a temporary file, compare with `Predictor` on `images`, and only then move the file to `path`.

    Raises:
        ValueError: another format, an impossible size, a missing extra, or more than a tenth of the images `beyond`.
    """
    path = Path(path)
    if format not in FORMATS:
        raise ValueError(f"postprocess=true is for format={' and format='.join(FORMATS)}, not for format={format}.")
    if min(size) < 33:
        raise ValueError(f"size={list(size)} is too small: the coarsest feature has stride 32, so give at least 33.")
    model = CompleteModel(trained, size).cpu().eval()
    example = torch.zeros(size[0] - 2, size[1] + 3, 3, dtype=torch.uint8)
    axes = {
        0: torch.export.Dim("height", min=2, max=LARGEST_SIDE),
        1: torch.export.Dim("width", min=2, max=LARGEST_SIDE),
    }
    with replacing(path) as temporary:
        with quiet(), torch.no_grad():
            program = torch.export.export(model, (example,), dynamic_shapes={"image": axes})
            about = replace(describe(trained, size), postprocessed=True)
            if format == "onnx":
                write_onnx(program, about, temporary, INPUTS, OUTPUTS)
            else:
                write_pt2(program, about, temporary)
        parity = compare(Predictor(trained, size), load(temporary, format), images)
        if parity.beyond > parity.images // 10:
            raise ValueError(
                f"The exported model gives other segments than eager in {parity.beyond} of {parity.images} images: "
                "nothing was written."
            )
    return parity


def load(path: str | Path, format: str = "onnx") -> Run:
    """A complete model of either format on the CPU: from an image to the four outputs."""
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda image: list(session.run(list(OUTPUTS), {"image": image}))
    module = torch.export.load(path).module()

    def run(image: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [tensor.numpy() for tensor in module(torch.from_numpy(image))]

    return run


def compare(predictor: Predictor, run: Run, images: Iterable[np.ndarray]) -> MapParity:
    """Run both on `images`, (H0, W0, 3) uint8 RGB each."""
    identical = pixels = beyond = count = 0
    for image in images:
        expected = predictor(image)
        segment_map, ids, labels, _ = run(image)
        differing = int((segment_map != expected.segment_map.numpy()).sum())
        same = list(zip(ids.tolist(), labels.tolist(), strict=True)) == [(s.id, s.label) for s in expected.segments]
        identical += same and not differing
        beyond += not same or differing > TIE * segment_map.size
        pixels += differing
        count += 1
    return MapParity(count, identical, pixels, beyond)

"""What the demo computes: opened images, overlays, tables, files, and what differs between two predictions."""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from kmax.demo.difference import Difference, compare
from kmax.images import open_image
from kmax.names import flat_name
from kmax.options import to_plain
from kmax.predict.predictor import Predictor, RawPrediction
from kmax.results import category_table, encode_ids, panoptic_annotation, segments_info
from kmax.structures import PanopticMap
from kmax.visualization import draw_cluster_viewer, draw_panoptic, fit_image, main_query, segment_colors
from kmax.visualization.panoptic import OPACITY

LONG_SIDE = 896  # of the result in pixels
THUMBNAIL = 320


@dataclass
class Opened:
    """An image that went through the network once: `raw` is all that the sliders and the cluster viewer need.

    `others` are the outputs of further models, by their number, as soon as they were asked for; `made` is the last
    panoptic map of the first model with its thresholds.
    """

    image: np.ndarray
    raw: RawPrediction
    name: str = "image"
    others: dict[int, RawPrediction] = field(default_factory=dict)
    made: tuple[dict[str, float], PanopticMap] | None = None


class Demo:
    """The computations of the app. Uploads and examples are in `folder`, which is deleted with the object.

    Args:
        predictor: the model.
        max_megapixels: of the largest image that is taken.
        others: further models to compare with.
        names: of all models, the first one's first.
    """

    def __init__(
        self,
        predictor: Predictor,
        max_megapixels: float = 40,
        others: Sequence[Predictor] = (),
        names: Sequence[str] = (),
    ) -> None:
        self.predictor, self.max_megapixels = predictor, max_megapixels
        self.predictors = (predictor, *others)
        self.names = tuple(names) or tuple(f"model {number}" for number in range(1, len(self.predictors) + 1))
        self.folder = tempfile.TemporaryDirectory(prefix="kmax-demo-")

    def save(self, images: Sequence[np.ndarray]) -> list[str]:
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
        return Opened(array, self.predictor.raw([array], all_stages=True)[0], name)

    def panoptic(self, opened: Opened, thresholds: Mapping[str, float], model: int = 0) -> PanopticMap:
        """The map of one of the models at these thresholds; the network runs only if it is that model's first time."""
        wanted = dict(thresholds)
        if model == 0 and opened.made is not None and opened.made[0] == wanted:
            return opened.made[1]
        if model and model not in opened.others:
            opened.others[model] = self.predictors[model].raw([opened.image])[0]
        raw = opened.others[model] if model else opened.raw
        found = self.predictors[model].finish(raw, thresholds=wanted).panoptic
        assert found is not None, "panoptic is what finish makes unless told otherwise"
        if model == 0:
            opened.made = (wanted, found)
        return found

    def segments(self, opened: Opened, thresholds: Mapping[str, float]) -> tuple[np.ndarray, list[list[object]]]:
        """The overlay and the rows of the table, from the one pass of the network."""
        panoptic, categories = self.panoptic(opened, thresholds), self.predictor.categories
        colors = segment_colors(panoptic.segments, categories)
        rows = []
        for entry, segment in zip(segments_info(panoptic, categories), panoptic.segments, strict=True):
            category = categories.classes[segment.label]
            chip = f'<span style="color:rgb{colors[segment.id]};font-size:1.4em;line-height:1">■</span>'
            area = 100 * entry["area"] / opened.image[..., 0].size
            kind = "thing" if category.is_thing else "stuff"
            rows.append([chip, category.name, kind, round(segment.score, 3), round(area, 1), *entry["bbox"]])
        return self.overlay(opened, thresholds), rows

    def overlay(self, opened: Opened, thresholds: Mapping[str, float], opacity: float = OPACITY) -> np.ndarray:
        """The segments over the image."""
        small = fit_image(opened.image, LONG_SIDE)
        found = self.panoptic(opened, thresholds)
        return draw_panoptic(small, found, self.predictor.categories, opacity=opacity)

    def write_mask(self, opened: Opened, thresholds: Mapping[str, float]) -> str:
        """Write the segment map as COCO's panoptic PNG, id = R + 256·G + 65536·B; its path."""
        path = self._new_file(opened, "png")
        Image.fromarray(encode_ids(self.panoptic(opened, thresholds).segment_map.numpy())).save(path)
        return str(path)

    def write_json(self, opened: Opened, thresholds: Mapping[str, float]) -> str:
        """Write the segments as COCO's panoptic JSON of one image, with the model and its thresholds; the path."""
        path, categories = self._new_file(opened, "json"), self.predictor.categories
        image = {"id": 1, "file_name": opened.name, "height": opened.image.shape[0], "width": opened.image.shape[1]}
        found = self.panoptic(opened, thresholds)
        content = {
            "info": {"ckpt": self.names[0], "inference": {**to_plain(self.predictor.inference), **thresholds}},
            "images": [image],
            "annotations": [panoptic_annotation(found, 1, categories, path.with_suffix(".png").name)],
            "categories": category_table(categories),
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        return str(path)

    def _new_file(self, opened: Opened, suffix: str) -> Path:
        """A path below `folder`, named after the image, in a folder of its own."""
        folder = tempfile.mkdtemp(prefix="download-", dir=self.folder.name)
        return Path(folder, f"{flat_name(Path(opened.name).stem)}-panoptic.{suffix}")

    def compare(
        self, opened: Opened, models: tuple[int, int], thresholds: tuple[Mapping[str, float], Mapping[str, float]]
    ) -> tuple[list[np.ndarray], str]:
        """Both overlays and a picture of where the classes differ, and a sentence about it."""
        small = fit_image(opened.image, LONG_SIDE)
        maps = [self.panoptic(opened, chosen, model) for model, chosen in zip(models, thresholds, strict=True)]
        classes = [self.predictors[model].categories for model in models]
        overlays = [draw_panoptic(small, found, own) for found, own in zip(maps, classes, strict=True)]
        difference: Difference = compare((maps[0], maps[1]), (classes[0], classes[1]))
        return [*overlays, difference.draw(small)], difference.sentence

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


def thumbnail(image: np.ndarray) -> str:
    """A small picture of an image as a data: URI."""
    with io.BytesIO() as file:
        Image.fromarray(fit_image(image, THUMBNAIL)).save(file, "JPEG", quality=85)
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"

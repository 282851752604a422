"""A folder of predictions that is written image by image and can be continued where it stopped.

run.json         what made the results; another run with other settings is refused
records.jsonl    one line per image, appended when all its files are there
overlay/*.jpg  panoptic/*.png  semantic/*.png          one file per image
panoptic.json  semantic.json  instances.json  segments.csv    made from the records at the end
annotations.json  label_studio.json  label_studio.xml         the same, to correct in an annotation tool
video/*.mp4      one per video, made from its overlays at the end
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from kmax.categories import Categories
from kmax.files import Json, replacing, write_list
from kmax.results.annotations import WRITERS, AnnotationStyle, annotation_entries
from kmax.results.coco import category_table, encode_ids, instance_results, segments_info
from kmax.results.label_maps import label_image, semantic_table
from kmax.results.records import Records
from kmax.structures import Instances, PanopticMap
from kmax.videos import write_video
from kmax.visualization import draw_panoptic

OUTPUTS = ("overlay", "panoptic", "semantic", "instances", "segments", "video", *WRITERS)
"""What can be written, by name. `video` joins the overlays of a video, and includes `overlay`."""

RESULT_FILES = ("run.json", "records.jsonl")
"""Files by which a folder of results is recognized."""

_FILES = (
    *(*RESULT_FILES, "panoptic.json", "semantic.json", "instances.json", "segments.csv"),
    *("annotations.json", "label_studio.json", "label_studio.xml"),
)
_COLUMNS = ("image", "id", "class", "isthing", "score", "area", "x", "y", "width", "height")


class ResultFolder:
    """The folder of the predictions of a run.

    Args:
        folder: is created if it does not exist.
        categories: of the model.
        outputs: some of `OUTPUTS`.
        settings: JSON-able values that decide what the results are (checkpoint, thresholds, …).
        overwrite: delete what is there instead of continuing it.
        draw: makes an overlay.
        style: of annotations to correct.

    Raises:
        ValueError: an unknown output; the folder holds results of other settings, or something else.
    """

    def __init__(
        self,
        folder: str | Path,
        categories: Categories,
        outputs: Sequence[str],
        settings: Json,
        overwrite: bool = False,
        draw: Callable[[np.ndarray, PanopticMap, Categories], np.ndarray] = draw_panoptic,
        style: AnnotationStyle = AnnotationStyle(),  # noqa: B008  frozen
    ) -> None:
        unknown = sorted(set(outputs) - set(OUTPUTS))
        if unknown or not outputs:
            raise ValueError(f"outputs={unknown or '[]'} is unknown: choose some of {', '.join(OUTPUTS)}.")
        self.folder, self.categories, self.outputs = Path(folder), categories, tuple(outputs)
        self._draw = draw
        self.style = style
        self._claim(json.loads(json.dumps({**settings, "outputs": sorted(outputs)})), overwrite)
        self.records = Records(self.folder / "records.jsonl")
        self._numbers: dict[int, str] = {}
        self._lock = threading.Lock()
        for record in self.records:
            if isinstance(record["image_id"], int):
                self._numbers[record["image_id"]] = record["key"]

    def _claim(self, settings: Json, overwrite: bool) -> None:
        note = self.folder / "run.json"
        if self.folder.is_dir() and any(self.folder.iterdir()):
            if not note.is_file():
                raise ValueError(f"{self.folder} holds something else than predictions: choose another output=….")
            before = _read_note(note)
            other = sorted(k for k in before.keys() | settings.keys() if before.get(k) != settings.get(k))
            if other and not overwrite:
                key = other[0]
                raise ValueError(
                    f"{self.folder} holds predictions of {key}={before.get(key)}, not {settings.get(key)}: "
                    "choose another output=…, or overwrite=true to delete them."
                )
            if overwrite:
                for name in OUTPUTS:
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                for name in _FILES:
                    (self.folder / name).unlink(missing_ok=True)
        with replacing(note) as path:
            path.write_text(json.dumps(settings, indent=1))

    def write(
        self,
        key: str,
        source: str,
        image: np.ndarray,
        panoptic: PanopticMap,
        semantic: np.ndarray | None = None,
        instances: Instances | None = None,
        about: Json | None = None,
    ) -> Json:
        """Write the files of one image and return its record, which `record` keeps; safe in several threads.

        Args:
            about: what else the record keeps: `origin` (name, key and state of the source, for `keep_only`), and `time`
                and `duration` of a video's frame.
            key: names the files; unique in the folder.
            source: where the image came from.
            image: (H, W, 3) uint8 RGB.
            panoptic, semantic (labels, H×W), instances: the predictions; the last two where the outputs ask for them.
        """
        if "overlay" in self.outputs or "video" in self.outputs:
            self._save(f"overlay/{key}.jpg", Image.fromarray(self._draw(image, panoptic, self.categories)))
        if "panoptic" in self.outputs:
            ids = panoptic.segment_map.cpu().numpy()
            self._save(f"panoptic/{key}.png", Image.fromarray(encode_ids(ids)))
        if "semantic" in self.outputs:
            assert semantic is not None, "the semantic output needs a semantic map"
            self._save(f"semantic/{key}.png", label_image(semantic, self.categories))
        image_id = self._image_id(key)
        record: Json = {
            "key": key,
            "source": source,
            "image_id": image_id,
            "height": image.shape[0],
            "width": image.shape[1],
        }
        record |= about or {}
        record["segments"] = segments_info(panoptic, self.categories)
        if not WRITERS.keys().isdisjoint(self.outputs):
            record["annotations"] = annotation_entries(panoptic, self.categories, self.style)
        if "instances" in self.outputs:
            assert instances is not None, "the instance output needs instances"
            record["instances"] = instance_results(instances, image_id, self.categories)
        return record

    def _image_id(self, key: str) -> int | str:
        """A number if the name can be recovered from it: "42", or "000000000042" as in COCO, but not both."""
        number = int(key) if re.fullmatch(r"[0-9]{12}|0|[1-9][0-9]{0,11}", key) else None
        with self._lock:
            return key if number is None or self._numbers.setdefault(number, key) != key else number

    @property
    def keys(self) -> dict[str, str]:
        """The keys of the sources that have results, by the names of the sources."""
        return {name: key for name, key, _ in self._origins().values()}

    def _origins(self) -> dict[str, list[str]]:
        """Name, key and state of the source of each result, by the result's key."""
        return {record["key"]: record["origin"] for record in self.records if "origin" in record}

    def keep_only(self, sources: Iterable[tuple[str, str, str]]) -> int:
        """Delete the results whose source is gone, was replaced, or now has another key; return their number.

        Args:
            sources: name, key and state of each source; cameras have no state and are kept.
        """
        now, stale, videos = set(sources), 0, set()
        for key, (name, source_key, state) in self._origins().items():
            if not state or (name, source_key, state) in now:
                continue
            for output, suffix in (("overlay", "jpg"), ("panoptic", "png"), ("semantic", "png")):
                (self.folder / output / f"{key}.{suffix}").unlink(missing_ok=True)
            videos.add(source_key)
            self.record_failure(key, name, "its source is gone or has changed")
            stale += 1
        for key in videos:
            (self.folder / "video" / f"{key}.mp4").unlink(missing_ok=True)
        return stale

    def record(self, record: Json) -> None:
        """Note that an image is finished."""
        self.records.append(record)

    def record_failure(self, key: str, source: str, error: str) -> None:
        """Note that an image could not be read; the next run tries it again."""
        self.records.append({"key": key, "source": source, "error": error})

    def assemble(self) -> list[Path]:
        """Make the JSON and csv files from all records so far; the files made."""
        makers = {"panoptic": self._panoptic_json, "instances": self._instances_json, "segments": self._segments_csv}
        makers["semantic"] = self._semantic_json
        made = [make() for name, make in makers.items() if name in self.outputs]
        written = [write for name, write in WRITERS.items() if name in self.outputs]
        return made + [write(self.folder, self.records, self.categories) for write in written]

    def make_video(self, key: str, rate: Fraction, name: str = "") -> Path | None:
        """Join the overlays of the video `key`, as many as there are, to `video/KEY.mp4`; None where there is none.

        Args:
            name: of the file in place of the key, which is empty where the folder holds one video.
            rate: frames per second, where the records do not tell the times of frames.
        """
        found = [record for record in self.records if record["key"].rpartition("/")[0] == key]
        found = [record for record in found if (self.folder / f"overlay/{record['key']}.jpg").is_file()]
        target = self.folder / "video" / f"{key or name}.mp4"
        if not found:
            return None
        times = [record.get("time") for record in found]
        known = [time for time in times if time is not None]
        if len(known) < len(times) or any(b <= a for a, b in pairwise(known)):
            known = []
        pictures = (np.asarray(Image.open(self.folder / f"overlay/{record['key']}.jpg")) for record in found)
        with replacing(target) as path:
            write_video(pictures, rate, path, known, found[-1].get("duration"))
        return target

    def _save(self, name: str, image: Image.Image) -> None:
        options: Json = {"quality": 95, "subsampling": 0} if name.endswith(".jpg") else {"compress_level": 4}
        with replacing(self.folder / name) as path:
            image.save(path, **options)

    def _semantic_json(self) -> Path:
        """What each value in semantic/*.png means."""
        with replacing(self.folder / "semantic.json") as path:
            path.write_text(json.dumps(semantic_table(self.categories), indent=1))
        return self.folder / "semantic.json"

    def panoptic_annotations(self) -> Iterator[Json]:
        """`annotations` of COCO's panoptic JSON; their files lie in panoptic/."""
        for r in self.records:
            yield {"image_id": r["image_id"], "file_name": f"{r['key']}.png", "segments_info": r["segments"]}

    def _panoptic_json(self) -> Path:
        def images() -> Iterator[Json]:
            for r in self.records:
                yield {"id": r["image_id"], "file_name": r["source"], "height": r["height"], "width": r["width"]}

        with replacing(self.folder / "panoptic.json") as path, path.open("w") as file:
            for name, entries in (("images", images()), ("annotations", self.panoptic_annotations())):
                file.write(f'{"{" if name == "images" else ","}"{name}": ')
                write_list(file, entries)
            file.write(f',"categories": {json.dumps(category_table(self.categories))}}}')
        return self.folder / "panoptic.json"

    def _instances_json(self) -> Path:
        with replacing(self.folder / "instances.json") as path, path.open("w") as file:
            write_list(file, (entry for r in self.records for entry in r["instances"]))
        return self.folder / "instances.json"

    def _segments_csv(self) -> Path:
        with replacing(self.folder / "segments.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(_COLUMNS)
            for r in self.records:
                for s in r["segments"]:
                    category = self.categories.classes[self.categories.label_of[s["category_id"]]]
                    row = (s["id"], category.name, int(category.is_thing), s["score"], s["area"], *s["bbox"])
                    table.writerow((r["key"], *row))
        return self.folder / "segments.csv"


def _read_note(path: Path) -> Json:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not the note of a run of predict.py: choose another output=….")
    return content

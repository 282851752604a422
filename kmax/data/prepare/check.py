"""Check a prepared dataset: every image, every PNG and every number of the JSON."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kmax.categories import Categories
from kmax.categories.checks import read_json
from kmax.data.layouts import SplitFiles
from kmax.data.panoptic_json import check_panoptic
from kmax.data.prepare.pool import parallel
from kmax.data.storage import Folder
from kmax.files import Json
from kmax.images import UnreadableImageError, is_turned, read_image, why_no_ids

SUBSET = "get the missing files, or pass --subset if you mean to use a part"


@dataclass(frozen=True)
class Finding:
    """What is wrong with which file, and the remedy; a note is unusual but harmless."""

    file: str
    problem: str
    remedy: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{'note' if self.is_note else 'error'}: {self.file}: {self.problem}; {self.remedy}."


def check_split(
    files: SplitFiles, categories: Categories, remedy: str, expected: int | None = None, workers: int = 0
) -> list[Finding]:
    """All findings about one split.

    Args:
        remedy: the command that makes the PNG files and the JSON again.
        expected: how many images the official release has; None: any number.
    """
    content, findings = _read(files.annotation_file, remedy)
    if content is None:
        return findings
    pairs, more = _pairs(content, files.annotation_file, remedy)
    findings += more
    if expected is not None and len(content["images"]) != expected:
        problem = f"{len(content['images'])} images, but the official release has {expected}"
        findings.append(Finding(str(files.annotation_file), problem, SUBSET))
    task = _CheckImage(files, frozenset(categories.ids), remedy)
    for found in parallel(task, pairs, f"check {files.annotation_file.stem}", workers):
        findings += found
    return findings


def _read(path: Path, remedy: str) -> tuple[Json | None, list[Finding]]:
    """The content of a panoptic JSON, or a finding about its first invalid entry."""
    try:
        content = read_json(path)
        check_panoptic(content, path)
    except FileNotFoundError:
        return None, [Finding(str(path), "is missing", remedy)]
    except ValueError as error:
        problem = str(error).removeprefix(str(path)).lstrip(": ").removesuffix(".")
        return None, [Finding(str(path), problem, remedy)]
    return content, []


def _pairs(content: Json, path: Path, remedy: str) -> tuple[list[tuple[Json, Json]], list[Finding]]:
    """(image, annotation) entries that belong together, and what does not."""
    findings = []
    for kind, key, entries in (
        ("image id", "id", content["images"]),
        ("image file", "file_name", content["images"]),
        ("annotation of image", "image_id", content["annotations"]),
        ("PNG", "file_name", content["annotations"]),
    ):
        for value, count in Counter(entry.get(key) for entry in entries).items():
            if count > 1:
                findings.append(Finding(str(path), f"{kind} {value} occurs {count} times", remedy))
    images = {image.get("id"): image for image in content["images"]}
    annotated = {annotation.get("image_id"): annotation for annotation in content["annotations"]}
    for image_id in images.keys() - annotated.keys():
        findings.append(Finding(str(path), f"image {image_id} has no annotation", remedy, is_note=True))
    for image_id in annotated.keys() - images.keys():
        name = annotated[image_id].get("file_name")
        findings.append(Finding(str(path), f"annotation {name} belongs to no image", remedy))
    return [(images[i], annotated[i]) for i in images if i in annotated], findings


@dataclass(frozen=True)
class _CheckImage:
    files: SplitFiles
    category_ids: frozenset[int]
    remedy: str

    def __call__(self, pair: tuple[Json, Json]) -> list[Finding]:
        image, annotation = pair
        return [*self._files(image, annotation), *self._table(annotation)]

    def _files(self, image: Json, annotation: Json) -> Iterator[Finding]:
        name = self.files.image_name(image["id"], image["file_name"])
        image_array = self._open(self.files.images, name)
        png = self._open(self.files.maps, annotation["file_name"])
        where = self.files.maps.where(annotation["file_name"])
        for opened, remedy in ((image_array, "download or unpack it again"), (png, self._again(where))):
            if isinstance(opened, Finding):
                yield Finding(opened.file, opened.problem, remedy)
        size = (image.get("width"), image.get("height"))
        if isinstance(image_array, np.ndarray) and None not in size and image_array.shape[1::-1] != size:
            yield from self._turned(image_array, name, size, "the JSON")
            problem = f"is {_by(image_array.shape[1::-1])} but the JSON says {_by(size)}"
            yield Finding(self.files.images.where(name), problem, "get image and JSON from one release")
        if isinstance(png, np.ndarray):
            if isinstance(image_array, np.ndarray) and image_array.shape[:2] != png.shape[:2]:
                yield from self._turned(image_array, name, png.shape[1::-1], "its annotation")
                problem = f"is {_by(png.shape[1::-1])} but its image {name} is {_by(image_array.shape[1::-1])}"
                yield Finding(where, problem, self._again(where))
            yield from self._ids(png, annotation, where)

    def _turned(
        self, image_array: np.ndarray, name: str, size: tuple[int | None, ...], whose: str
    ) -> Iterator[Finding]:
        """A finding if the orientation tag of an image explains why its size is not that of its annotation."""
        if image_array.shape[:2] == size and is_turned(self.files.images.read(name)):
            problem = (
                f"is {_by(image_array.shape[1::-1])} as its orientation tag turns it, but {whose} says {_by(size)}"
            )
            remedy = "annotate it as viewers show it, or remove the tag"
            yield Finding(self.files.images.where(name), problem, remedy)

    def _ids(self, png: np.ndarray, annotation: Json, where: str) -> Iterator[Finding]:
        ids, areas = np.unique(png.astype(np.int32) @ np.array([1, 256, 65536], np.int32), return_counts=True)
        in_png = dict(zip(ids.tolist(), areas.tolist(), strict=True))
        in_png.pop(0, None)
        in_json = {segment["id"]: segment.get("area") for segment in annotation["segments_info"]}
        in_json.pop(0, None)
        json_file = str(self.files.annotation_file)
        reason = why_no_ids(self.files.maps.read(annotation["file_name"])) if in_png.keys() != in_json.keys() else None
        if reason:
            yield Finding(where, f"is {reason}, and its colors are no segments of {json_file}", self._again(where))
            return
        for id_ in in_png.keys() - in_json.keys():
            yield Finding(where, f"segment {id_} is not in {json_file}", self._again(where))
        for id_ in in_json.keys() - in_png.keys():
            yield Finding(json_file, f"segment {id_} is not in {where}", self._again(where))
        for id_ in in_png.keys() & in_json.keys():
            if in_json[id_] not in (None, in_png[id_]):
                problem = f"segment {id_} has {in_png[id_]} pixels but {json_file} says {in_json[id_]}"
                yield Finding(where, problem, self._again(where))
        if not in_png:
            yield Finding(where, "has no segment", "nothing to do: training draws another image", is_note=True)

    def _table(self, annotation: Json) -> Iterator[Finding]:
        name, json_file = annotation["file_name"], str(self.files.annotation_file)
        for segment in annotation["segments_info"]:
            if segment["id"] <= 0:
                problem = f"segment {segment['id']} of {name}: ids start at 1, since 0 is unlabeled"
                yield Finding(json_file, problem, self.remedy)
            if segment["category_id"] not in self.category_ids:
                problem = f"category {segment['category_id']} of segment {segment['id']} in {name} is unknown"
                yield Finding(json_file, problem, f"{self.remedy}, or name it in the list of classes")
        for id_, count in Counter(segment["id"] for segment in annotation["segments_info"]).items():
            if count > 1:
                yield Finding(json_file, f"segment {id_} of {name} occurs {count} times", self.remedy)

    def _again(self, where: str) -> str:
        return f"delete {where} and {self.remedy}"

    def _open(self, folder: Folder, name: str) -> np.ndarray | Finding:
        """An image as RGB, or what is wrong with it."""
        where = folder.where(name)
        try:
            return read_image(folder, name)
        except FileNotFoundError:
            return Finding(where, "is missing", "")
        except UnreadableImageError as error:
            problem = str(error).removeprefix(f"The image {where} ").removesuffix(".")
            return Finding(where, problem.removesuffix(": download or unpack it again"), "")
        except (OSError, ValueError) as error:
            return Finding(where, f"is damaged ({error})", "")


def _by(size: tuple[int | None, ...]) -> str:
    return f"{size[0]}×{size[1]}"


def print_findings(findings: list[Finding], root: Path, shown: int = 40) -> int:
    """Print what a check has found; the number of errors."""
    ordered = sorted(findings, key=lambda finding: finding.is_note)
    errors = sum(not finding.is_note for finding in ordered)
    for finding in ordered[:shown]:
        print(finding, file=sys.stderr)
    if len(ordered) > shown:
        print(f"… and {len(ordered) - shown} more", file=sys.stderr)
    print(f"{root}: {errors} error(s), {len(ordered) - errors} note(s)")
    return errors

"""The panoptic writer: images, PNG maps and JSON of both splits, resumable, each file complete or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kmax.data.convert.image_files import frame_of, turned
from kmax.data.convert.names import unique_stems
from kmax.data.convert.paint import Rules, draw
from kmax.data.convert.prepared import SPLITS, annotation_file, entries
from kmax.data.convert.source import OBJECT, Item, Source
from kmax.data.prepare.pool import Journal, parallel
from kmax.data.prepare.segments import encode_ids, segments_info
from kmax.files import Json, explained, write_atomically, write_bytes, write_json

FORMAT = 1  # version of the written format: a new number converts everything again
TURNED = "annotation of an image as stored, turned as its EXIF data say"


@dataclass(frozen=True)
class Job:
    """One image: its path in the result, and a digest of everything that its conversion depends on."""

    item: Item
    split: str
    stem: str
    suffix: str
    digest: str

    @property
    def image_file(self) -> str:
        """Path of the image, below the root."""
        return f"{self.split}/{self.stem}{self.suffix}"

    @property
    def png(self) -> str:
        """Path of the map, below the root."""
        return f"annotations/panoptic_{self.split}/{self.stem}.png"


@dataclass(frozen=True)
class Written:
    """Result of a conversion: images by split, and what was left out, by reason; for images, a sentence each."""

    image_counts: Mapping[str, int]
    left_out: Mapping[str, int]
    refused: tuple[str, ...] = ()
    segments: Mapping[str, Mapping[int, int]] = field(default_factory=dict)  # by split and category


def jobs_of(source: Source, splits: Mapping[str, str], rules: Rules, link: bool) -> list[Job]:
    """What is to be done for the items that `splits` names, in the order of their keys."""
    items = sorted((item for item in source.items if item.key in splits), key=lambda item: item.key)
    stems = unique_stems(item.key for item in items)
    common = json.dumps([FORMAT, source.format, link, str(rules)])
    return [
        Job(
            item,
            splits[item.key],
            stems[item.key],
            item.image_file.suffix.lower() if item.image_file is not None else ".png",
            _digest(item, common),
        )
        for item in items
    ]


def _digest(item: Item, common: str) -> str:
    states = [
        (str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in (item.image_file, *item.files) if file
    ]
    records = [str({key: value for key, value in record.items() if key != OBJECT}) for record in item.records]
    text = json.dumps([common, item.size, states, records])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class _Convert:
    """Writes image and PNG of a job and returns its entries in the JSON, or the reason why there are none."""

    source: Source
    rules: Rules
    root: Path
    link: bool

    def __call__(self, job: Job) -> Json:
        try:
            return self._entry(job)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
            if isinstance(error, ValueError) and "could not be written" in str(error):
                raise
            what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
            return {"digest": job.digest, "refused": f"{job.item.key} ({self.source.format}): {what.rstrip('.')}"}

    def _entry(self, job: Job) -> Json:
        item, target = job.item, self.root / job.image_file
        if item.image_file is None:
            assert self.source.embedded is not None, "an image lies somewhere"
            write_bytes(target, self.source.embedded(item))
        frame = frame_of(item.image_file or target)
        size = item.size or frame.viewed
        if size not in (frame.viewed, frame.stored):
            raise ValueError(f"the annotation is for {_by(size)} pixels but the image has {_by(frame.viewed)}")
        drawing = draw(self.source.read(item, size), size, self.rules)
        segment_map, left_out = drawing.segment_map, Counter(drawing.left_out)
        if segment_map.shape != frame.viewed and segment_map.shape == frame.stored:
            segment_map = turned(segment_map, frame.orientation)
            left_out[TURNED] += 1
        if segment_map.shape != frame.viewed:
            raise ValueError(f"the map is {_by(segment_map.shape)} but the image {_by(frame.viewed)}")
        if item.image_file is not None:
            copy_or_link(item.image_file, target, self.link)
        write_bytes(self.root / job.png, encode_ids(segment_map))
        height, width = segment_map.shape
        image = {"id": job.stem, "width": width, "height": height, "file_name": Path(job.image_file).name}
        segments = segments_info(segment_map, drawing.segments)
        annotation = {"image_id": job.stem, "file_name": Path(job.png).name, "segments_info": segments}
        image["origin"] = {"file": item.key, "digest": job.digest, "left_out": dict(left_out)}
        return {"digest": job.digest, "image": image, "annotation": annotation}


def _by(size: tuple[int, ...]) -> str:
    return f"{size[1]}×{size[0]}"


def copy_or_link(image_file: Path, target: Path, link: bool) -> None:
    """A copy of an image, or a symbolic link to it."""
    if not link:
        with write_atomically(target) as temporary:
            shutil.copyfile(image_file, temporary)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    temporary.symlink_to(image_file.resolve())
    temporary.replace(target)


def write(
    source: Source, jobs: Sequence[Job], rules: Rules, root: Path, link: bool, workers: int, info: Json
) -> Written:
    """Convert all jobs; what an earlier run with the same options finished is kept, and what is no longer there goes.

    Raises:
        ValueError: the disk is full, or no image is left for one of the splits.
    """
    journal = Journal(root / "annotations" / ".panoptic.unfinished")
    before = {split: entries(root, split) for split in SPLITS}
    done = {**{key: entry for split in SPLITS for key, entry in before[split].items()}, **journal.done}
    todo = [job for job in jobs if not _is_done(done.get(job.image_file), job, root)]
    if todo or any(not annotation_file(root, split).is_file() for split in SPLITS):
        _reopen(journal, done, root)
        convert = _Convert(source, rules, root, link)
        for job, entry in zip(todo, parallel(convert, todo, source.format, _workers(source, workers)), strict=True):
            journal.add(job.image_file, entry)
            done[job.image_file] = entry
    refused = tuple(done[job.image_file]["refused"] for job in jobs if "refused" in done[job.image_file])
    kept = [job for job in jobs if "refused" not in done[job.image_file]]
    for split in SPLITS:
        if not any(job.split == split for job in kept):
            raise ValueError(f"No image is left for {split}: {len(refused)} were refused, the first: {refused[0]}.")
    for split in SPLITS:
        _write_json(root, split, [done[job.image_file] for job in kept if job.split == split], rules, info)
    _remove_stale(root, done, kept)
    journal.close()
    return _summary(kept, done, refused)


def _workers(source: Source, workers: int) -> int:
    return 0 if source.in_one_process else workers


def _is_done(entry: Json | None, job: Job, root: Path) -> bool:
    if entry is None or entry.get("digest") != job.digest:
        return False
    return "refused" in entry or ((root / job.image_file).is_file() and (root / job.png).is_file())


def _reopen(journal: Journal, done: Json, root: Path) -> None:
    """While files are replaced there is no JSON that contradicts them: the journal holds what is finished."""
    try:
        journal.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(error, journal.path.parent) from error
    for key, entry in done.items():
        if key not in journal.done:
            journal.add(key, entry)
    for split in SPLITS:
        annotation_file(root, split).unlink(missing_ok=True)


def _write_json(root: Path, split: str, found: Sequence[Json], rules: Rules, info: Json) -> None:
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"panoptic_{split}").mkdir(parents=True, exist_ok=True)
    content = {
        "info": dict(info),
        "images": [entry["image"] for entry in found],
        "annotations": [entry["annotation"] for entry in found],
        "categories": rules.categories.to_dict()["classes"],
    }
    write_json(annotation_file(root, split), content)


def _remove_stale(root: Path, done: Iterable[str], kept: Sequence[Job]) -> None:
    """Files of images that an earlier run wrote and this one does not have."""
    now = {job.image_file for job in kept}
    maps = {job.png for job in kept}
    for key in done:
        split, _, name = key.partition("/")
        if key not in now:
            (root / key).unlink(missing_ok=True)
        png = f"annotations/panoptic_{split}/{os.path.splitext(name)[0]}.png"
        if png not in maps:
            (root / png).unlink(missing_ok=True)


def _summary(kept: Sequence[Job], done: Json, refused: tuple[str, ...]) -> Written:
    left_out: Counter[str] = Counter()
    segments: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
    for job in kept:
        entry = done[job.image_file]
        left_out.update(entry["image"]["origin"]["left_out"])
        segments[job.split].update(s["category_id"] for s in entry["annotation"]["segments_info"])
    return Written(Counter(job.split for job in kept), left_out, refused, segments)

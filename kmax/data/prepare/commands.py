"""What `scripts/prepare_*.py` do: one preparation per dataset, and their common command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kmax.categories import Categories, load_categories
from kmax.categories.checks import read_json
from kmax.data import layouts
from kmax.data.layouts import SplitFiles
from kmax.data.prepare.check import Finding, check_split, print_findings
from kmax.data.prepare.panoptic import CITYSCAPES_ANNOTATIONS, ADE20KSource, CityscapesSource, convert_split
from kmax.data.prepare.segments import facts
from kmax.data.prepare.semantic import write_semantic
from kmax.data.prepare.unpack import unpack
from kmax.data.storage import Archive, find_folder

COCO_ANNOTATIONS = "panoptic_annotations_trainval2017.zip"


@dataclass(frozen=True)
class Options:
    """The command line. `source` None: the downloads lie in `root` itself."""

    root: Path
    source: Path | None = None
    splits: tuple[str, ...] = ("train", "val")
    workers: int = 0
    unpack: bool = False
    check: bool = False
    subset: bool = False
    semantic: bool = False


def _coco(options: Options, categories: Categories) -> None:
    folder = options.root / "annotations"
    for split in options.splits:
        if not (folder / f"panoptic_{split}2017.json").is_file() and (options.root / COCO_ANNOTATIONS).is_file():
            unpack(Archive(options.root / COCO_ANNOTATIONS, ("annotations",)), folder, COCO_ANNOTATIONS)
        files = layouts.coco(options.root, split)
        if options.unpack:
            unpack(files.images, options.root / f"{split}2017", f"{split} images", options.workers)
            unpack(files.maps, folder / f"panoptic_{split}2017", f"{split} annotations", options.workers)
        if options.semantic:
            annotations = read_json(files.annotation_file)["annotations"]
            write_semantic(files, annotations, categories, folder / f"semantic_{split}2017", options.workers)


def _cityscapes(options: Options, categories: Categories) -> None:
    for split in options.splits:
        source = CityscapesSource.find(options.root, split, categories)
        folder = options.root / "gtFine" / f"cityscapes_panoptic_{split}"
        convert_split(source, folder, f"Cityscapes {split}", options.workers)
        images = find_folder(options.root, f"leftImg8bit/{split}", (layouts.CITYSCAPES_IMAGES,))
        if options.unpack:
            unpack(images, options.root / "leftImg8bit" / split, f"{split} images", options.workers)


def _ade20k(options: Options, categories: Categories) -> None:
    for split in options.splits:
        source = ADE20KSource.find(options.root, split, categories)
        convert_split(source, options.root / f"ade20k_panoptic_{split}", f"ADE20K {split}", options.workers)
        if options.unpack:
            target = options.root / "images" / layouts.ADE20K_FOLDERS[split]
            unpack(source.images, target, f"{split} images", options.workers)


@dataclass(frozen=True)
class Preparation:
    """`prepare` makes what is missing; `files` tells where the result is; `downloads` are linked from `--source`."""

    prepare: Callable[[Options, Categories], None]
    files: Callable[[Path, str], SplitFiles]
    downloads: tuple[str, ...]


COCO_SPLITS = [
    f"{name}{suffix}"
    for split in ("train2017", "val2017")
    for name in (split, f"annotations/panoptic_{split}")
    for suffix in ("", ".zip", ".json")
]
ADE20K_DOWNLOADS = [
    f"{name}{suffix}" for name in ("images", "annotations", "annotations_instance") for suffix in ("", ".tar")
]
PREPARATIONS = {
    "coco": Preparation(
        _coco,
        layouts.coco,
        (COCO_ANNOTATIONS, *COCO_SPLITS),
    ),
    "cityscapes": Preparation(
        _cityscapes,
        layouts.cityscapes,
        ("leftImg8bit", layouts.CITYSCAPES_IMAGES, "gtFine/train", "gtFine/val", CITYSCAPES_ANNOTATIONS),
    ),
    "ade20k": Preparation(
        _ade20k,
        layouts.ade20k,
        ("ADEChallengeData2016", layouts.ADE20K_IMAGES[0], *ADE20K_DOWNLOADS),
    ),
}


def prepare(dataset: str, options: Options) -> None:
    """Make the files for training from the official downloads; files that exist already are left alone.

    Raises:
        FileNotFoundError, ValueError: a download is missing or damaged, or the disk is full.
    """
    preparation = PREPARATIONS[dataset]
    if options.source is not None and options.source.resolve() != options.root.resolve():
        _link(options.source.resolve(), options.root, preparation.downloads)
    preparation.prepare(options, load_categories(dataset))


def _link(source: Path, root: Path, names: Sequence[str]) -> None:
    """Make symbolic links in `root` to those of `names` that exist in `source`."""
    if not source.is_dir():
        raise FileNotFoundError(f"--source {source} is no folder: give the one with the downloads.")
    for name in names:
        target = root / name
        if (source / name).exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(source / name, target)


def check(dataset: str, options: Options) -> list[Finding]:
    """Everything that is wrong with a prepared tree."""
    remedy = f"run python scripts/prepare_{dataset}.py --root {options.root}"
    if dataset == "coco":
        remedy = f"unpack {COCO_ANNOTATIONS} again"
    findings: list[Finding] = []
    for split in options.splits:
        try:
            files = PREPARATIONS[dataset].files(options.root, split)
        except (FileNotFoundError, ValueError) as error:
            findings.append(Finding(str(options.root), str(error).rstrip("."), remedy))
            continue
        expected = None if options.subset else facts(dataset)["images"][split]
        findings += check_split(files, load_categories(dataset), remedy, expected, options.workers)
    return findings


def parse(dataset: str, description: str, arguments: Sequence[str] | None = None) -> Options:
    """The options that a command line gives."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("data") / dataset,
        help="folder of the prepared dataset, from which training reads (%(default)s)",
    )
    parser.add_argument(
        "--source", type=Path, help="folder of the downloads, if not --root; they are linked, not copied"
    )
    parser.add_argument("--splits", nargs="+", choices=("train", "val"), default=("train", "val"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument("--unpack", action="store_true", help="unpack images; otherwise training reads the archives")
    parser.add_argument("--check", action="store_true", help="check what is there, and change nothing")
    parser.add_argument("--subset", action="store_true", help="with --check: fewer images than the release are fine")
    if dataset == "coco":
        parser.add_argument("--semantic", action="store_true", help="also write semantic maps, 255 = void")
    options = vars(parser.parse_args(arguments))
    return Options(**{**options, "splits": tuple(options["splits"])})


Ready = Callable[[object, str, Path], str]
"""Makes the last line for what was prepared, the name of the dataset and its folder."""


def main(dataset: str, description: str, ready: Ready) -> int:
    """What `scripts/prepare_*.py` do: the exit status, 1 after a user's mistake, which is told in one sentence."""
    options = parse(dataset, description)
    try:
        status = run(dataset, options)
        if not options.check:
            print(ready(dataset, dataset, options.root))
        return status
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(dataset: str, options: Options, shown: int = 40) -> int:
    """Prepare, or check and print the result; the exit status is 1 if the check has found an error.

    Raises:
        FileNotFoundError, ValueError: as `prepare`.
    """
    if not options.check:
        prepare(dataset, options)
        return 0
    return 1 if print_findings(check(dataset, options), options.root, shown) else 0

"""The command line of `scripts/prepare_own.py`; light to import."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DATUMARO = "datumaro"
FORMATS = {
    "voc": "Pascal VOC segmentation",
    "yolo": "YOLO segmentation",
    "cvat": "CVAT for images 1.1",
    "coco-panoptic": "COCO panoptic and Mapillary Vistas v2.0",
    "coco": "COCO instances (CVAT, Roboflow and Label Studio write it as well)",
    "labelme": "Labelme",
    "semantic": "semantic maps",
}
"""Formats in the order in which they are looked for."""


@dataclass(frozen=True)
class Options:
    """How a source is converted, checked and previewed."""

    root: Path  # the prepared folder, later dataset.root
    source: Path | None = None  # folder or annotation file; None: nothing to convert, with check or preview
    format: str = ""  # a key of FORMATS, datumaro or datumaro:NAME; empty: found out
    images: Path | None = None  # folder of the images, if they lie elsewhere than the annotations
    names: Path | None = None  # class list of semantic maps
    val: float | None = None  # part of the images for validation; None: the source's splits, or 0.2
    seed: int = 0  # of the split
    stuff: tuple[str, ...] = ()  # classes of one segment per image
    things: tuple[str, ...] = ()  # classes of countable objects; in semantic maps, connected components
    classes: tuple[str, ...] = ()  # the classes to keep, in this order; empty: all
    ignore: tuple[str, ...] = ()  # classes whose pixels are neither trained on nor counted
    unlabeled: str = ""  # background or void; empty: as the format means it
    min_area: int = 1  # pixels; smaller segments become void
    link: bool = False  # link images instead of copying them
    workers: int = 0  # processes; 0: this one alone
    check: bool = False  # check what is there and change nothing
    preview: int = 0  # overlays to draw
    size: int = 641  # longer side in training, for the preview's warnings
    queries: int = 128  # segments that the model can find, for the preview's warnings


def parse(description: str, arguments: Sequence[str] | None = None) -> Options:
    """The options that a command line gives; it exits with a usage message where they contradict each other."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", help="folder of annotations and images, or annotation file")
    parser.add_argument("--root", type=Path, required=True, help="folder to write, from which training reads")
    _add_reading(parser)
    _add_rules(parser)
    parser.add_argument("--check", action="store_true", help="check --root, and change nothing")
    parser.add_argument("--preview", type=int, default=0, metavar="N", help="draw N images with their ground truth")
    parser.add_argument("--size", type=int, default=641, help="longer side in training, for warnings (%(default)s)")
    parser.add_argument("--queries", type=int, default=128, help="queries of the model, for warnings (%(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    given = vars(parser.parse_args(arguments))
    given.pop("copy")
    options = Options(**given)
    problem = _contradiction(options)
    if problem:
        parser.error(problem)
    return options


def _add_reading(parser: argparse.ArgumentParser) -> None:
    known = ", ".join((*FORMATS, DATUMARO, f"{DATUMARO}:NAME"))
    parser.add_argument("--format", default="", help=f"instead of finding out: {known}")
    parser.add_argument("--images", type=Path, help="folder of the images, if they lie elsewhere")
    parser.add_argument("--names", type=Path, help="class list of semantic maps, if it is not among them")
    parser.add_argument("--val", type=float, help="part of the images for validation (the source's splits, or 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="of the split (%(default)s)")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--link", action="store_true", help="link images instead of copying them")
    kept.add_argument("--copy", action="store_true", help="copy images (this is the default)")


def _add_rules(parser: argparse.ArgumentParser) -> None:
    for name, meaning in (
        ("stuff", "classes of one segment per image, such as sky,road"),
        ("things", "classes of countable objects; in semantic maps, each connected component is one"),
        ("classes", "keep these classes alone, in this order"),
        ("ignore", "classes whose pixels are neither trained on nor counted"),
    ):
        parser.add_argument(f"--{name}", type=_names, default=(), metavar="A,B", help=meaning)
    parser.add_argument(
        "--unlabeled",
        choices=("background", "void"),
        default="",
        help="what pixels without annotation are (background, in panoptic and semantic maps void)",
    )
    parser.add_argument(
        "--min-area", type=int, default=1, help="smaller segments, in pixels, become void (%(default)s)"
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _contradiction(options: Options) -> str:
    """What cannot be done as it was asked, or nothing."""
    if options.source is None and not options.check and not options.preview:
        return "give the SOURCE to convert, or --check or --preview N to look at what is in --root"
    if options.source is not None and options.check:
        return "--check looks at --root and changes nothing: leave out the SOURCE, or --check"
    if options.val is not None and not 0 < options.val < 1:
        return f"--val is a part of the images, between 0 and 1, not {options.val}"
    if options.format.partition(":")[0] not in ("", DATUMARO, *FORMATS):
        return f"--format {options.format} is unknown: choose from {', '.join((*FORMATS, DATUMARO))}"
    twice = {*options.stuff} & {*options.things}
    if twice:
        return f"{min(twice)} cannot be both in --stuff and in --things"
    for name in ("min_area", "size", "queries"):
        if getattr(options, name) < 1:
            return f"--{name.replace('_', '-')} starts at 1"
    return "--workers and --preview start at 0" if min(options.workers, options.preview) < 0 else ""

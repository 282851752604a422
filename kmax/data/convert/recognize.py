"""Recognize the format of a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from kmax.data.convert import coco_instances, coco_panoptic, cvat, labelme, semantic, voc, with_datumaro, yolo
from kmax.data.convert.options import DATUMARO, FORMATS, Options
from kmax.data.convert.source import Source
from kmax.data.convert.tree import Tree
from kmax.images import IMAGE_SUFFIXES

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")

READERS: dict[str, Callable[[Tree, Options], Source | None]] = {
    "voc": lambda tree, options: voc.find(tree, options.workers),
    "yolo": lambda tree, options: yolo.find(tree),
    "cvat": lambda tree, options: cvat.find(tree),
    "coco-panoptic": lambda tree, options: coco_panoptic.find(tree),
    "coco": lambda tree, options: coco_instances.find(tree),
    "labelme": lambda tree, options: labelme.find(tree, options.workers),
    "semantic": lambda tree, options: semantic.find(tree, options.names, options.workers),
}
assert set(READERS) == set(FORMATS)


def recognize(options: Options) -> Source:
    """Recognize and read `options.source`; `options.format` names the format instead.

    Raises:
        FileNotFoundError, ValueError: it is missing, damaged, or in no format that is read; the message says what it
            looks like.
    """
    assert options.source is not None, "a conversion has a source"
    tree = Tree(options.source, options.images, options.root)
    wanted, _, detail = options.format.partition(":")
    if wanted == DATUMARO:
        return with_datumaro.find(tree, detail)
    if tree.source.is_file() and tree.source.suffix.lower() in ARCHIVES:
        raise ValueError(f"{options.source} is an archive: unpack it and give the folder.")
    for name in [wanted] if wanted else READERS:
        source = _read(name, tree, options)
        if source is not None:
            return source
    asked = f"is not in the format {wanted}" if wanted else "is in no format that is read"
    raise ValueError(f"{options.source} {asked}: it {_looks_like(tree)}. Read are: {', '.join(FORMATS.values())}.")


def _read(name: str, tree: Tree, options: Options) -> Source | None:
    """Run one reader; any unexpected error means a file that breaks the rules of its format."""
    try:
        return READERS[name](tree, options)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(
            f"{options.source} looks like {FORMATS[name]}, but an entry is not as that format has it "
            f"({type(error).__name__}: {error}): export it again."
        ) from error


def _looks_like(tree: Tree) -> str:
    """What a source contains, as the end of a sentence."""
    kinds = Counter(tree.json_files.values())
    if kinds:
        return "holds " + ", ".join(f"{kind} ({count} file{'s' * (count > 1)})" for kind, count in kinds.most_common(3))
    endings = Counter(_ending(file) for file in tree.files)
    if not endings:
        return "is empty"
    if set(endings) <= {"images"}:
        return f"holds {endings['images']} images and no annotation"
    return "holds " + ", ".join(f"{count} {ending}" for ending, count in endings.most_common(4))


def _ending(file: Path) -> str:
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "images"
    return "TFRecord files" if "tfrecord" in file.name else f"{suffix or 'unnamed'} files"

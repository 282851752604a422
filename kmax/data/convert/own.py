"""What `scripts/prepare_own.py` does with annotations: recognize, split, convert and report."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from kmax.categories import load_categories
from kmax.data.convert.options import Options
from kmax.data.convert.paint import Rules
from kmax.data.convert.prepared import PREPARED_BY, SPLITS, annotation_file, earlier_info
from kmax.data.convert.recognize import recognize
from kmax.data.convert.rules import rules_of
from kmax.data.convert.source import Item, Source
from kmax.data.convert.split import stratified
from kmax.data.convert.writer import Written, jobs_of, write
from kmax.files import Json

DEFAULT_VAL = 0.2
TEST = "image of a test split"
TWICE = "second annotation file of one image"
SHOWN = 10


def convert(options: Options) -> Written:
    """Make `options.root` from `options.source`; a second run continues where the first stopped.

    Raises:
        FileNotFoundError, ValueError: the source is missing, damaged or in no known format; the root is not ours.
    """
    assert options.source is not None, "a conversion has a source"
    info = _info(options)
    _check_root(options, info)
    source = recognize(options)
    twice = len(source.items) - len({item.key for item in source.items})
    if twice:  # the first file counts
        items = tuple({item.key: item for item in reversed(source.items)}.values())
        source = replace(source, items=items, left_out={**source.left_out, TWICE: twice})
    rules = rules_of(source, options)
    print(describe(source, rules, options))
    splits = assign(source, rules, options)
    left_out = Counter(source.left_out)
    if len(splits) < len(source.items):
        left_out[TEST] += len(source.items) - len(splits)
    if len(splits) < 2:
        raise ValueError(f"{options.source} ({source.format}) has {len(splits)} usable image: training needs two.")
    jobs = jobs_of(source, splits, rules, options.link)
    info["format"] = source.format
    written = write(source, jobs, rules, options.root, options.link, options.workers, info)
    return replace(written, left_out=Counter(written.left_out) + left_out)


def _info(options: Options) -> Json:
    return {
        "description": "Panoptic annotations made from others",
        "prepared_by": PREPARED_BY,
        "source": str(options.source.resolve()) if options.source is not None else "",
        "val": options.val,
        "seed": options.seed,
    }


def _check_root(options: Options, info: Json) -> None:
    """The root is new, or was made by this command from the same source, so that nobody's files are replaced."""
    root, source = options.root.resolve(), Path(info["source"])
    if root == source or source.is_relative_to(root):
        raise ValueError(f"--root {options.root} is the source itself or around it: choose a folder of its own.")
    before = earlier_info(options.root)
    if before is None:
        return
    if before.get("prepared_by") != PREPARED_BY:
        raise ValueError(f"--root {options.root} holds annotations of another origin: choose a folder of its own.")
    if before.get("source") != info["source"]:
        raise ValueError(
            f"--root {options.root} was made from {before.get('source')}: choose another --root, or delete it."
        )


def describe(source: Source, rules: Rules, options: Options) -> str:
    """The format of the source, and what it means for pixels without annotation."""
    things = sum(rules.categories.is_thing)
    stuff = rules.categories.num_classes - things
    text = f"{options.source} is {source.format}: {len(source.items)} images, {things} thing and {stuff} stuff classes."
    if rules.rest is None:
        return f"{text}\nPixels without annotation are void: neither trained on nor counted."
    name = rules.categories.names[rules.categories.label_of[rules.rest]]
    return f"{text}\nPixels without annotation are the stuff class {name!r} (--unlabeled void leaves them out)."


def assign(source: Source, rules: Rules, options: Options) -> dict[str, str]:
    """Split by key: the source's own where it has one, unless `--val` asks for another; else stratified.

    Images of a test split are left out, unless there are no others. Images that an earlier run with the same
    `--val` and `--seed` has assigned stay where they are.
    """
    items = [item for item in source.items if item.split != "test"] or list(source.items)
    own = {item.split for item in items}
    if options.val is None and {"train", "val"} <= own:
        return {item.key: item.split or "train" for item in items}
    kept = [replace(item, labels=frozenset(item.labels & rules.id_of.keys())) for item in items]
    val = stratified(kept, options.val or DEFAULT_VAL, options.seed, _assigned(options, items))
    return {item.key: "val" if item.key in val else "train" for item in items}


def _assigned(options: Options, items: list[Item]) -> dict[str, str]:
    """Splits of an earlier run with the same `--val` and `--seed`."""
    before = earlier_info(options.root)
    if not before or (before.get("val"), before.get("seed")) != (options.val, options.seed):
        return {}
    keys = {item.key for item in items}
    assigned = {}
    for split in SPLITS:
        try:
            images = json.loads(annotation_file(options.root, split).read_bytes())["images"]
        except (OSError, ValueError, KeyError):
            return {}
        assigned.update({image["origin"]["file"]: split for image in images if image["origin"]["file"] in keys})
    return assigned


def report(written: Written, options: Options) -> str:
    """Segments per class and split, and what was left out and why."""
    categories = load_categories(str(annotation_file(options.root, "train")))
    width = max(len(name) for name in (*categories.names, "class"))
    lines = [f"{'class':{width}}  kind   {'train':>8} {'val':>8}   segments"]
    for category in categories.classes:
        counts = [written.segments[split].get(category.id, 0) for split in SPLITS]
        kind = "thing" if category.is_thing else "stuff"
        lines.append(f"{category.name:{width}}  {kind}  {counts[0]:8d} {counts[1]:8d}")
    lines.append(
        f"{'images':{width}}         {written.image_counts.get('train', 0):8d} {written.image_counts.get('val', 0):8d}"
    )
    lines += [f"Noted: {count} × {reason}." for reason, count in sorted(written.left_out.items())]
    lines += [f"Left out: {sentence}." for sentence in written.refused[:SHOWN]]
    if len(written.refused) > SHOWN:
        lines.append(f"… and {len(written.refused) - SHOWN} more images were left out.")
    return "\n".join(lines)

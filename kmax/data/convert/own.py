"""What `scripts/prepare_own.py` does with annotations: recognize, split, convert, and say what came of it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kmax.categories import load_categories
from kmax.data.convert.options import Options
from kmax.data.convert.paint import Rules
from kmax.data.convert.recognize import recognize
from kmax.data.convert.rules import rules_of
from kmax.data.convert.source import Item, Source
from kmax.data.convert.split import stratified
from kmax.data.convert.writer import PREPARED_BY, SPLITS, Written, annotation_file, jobs_of, write
from kmax.data.layouts import files_at
from kmax.data.prepare.check import Finding, check_split

DEFAULT_VAL = 0.2
REMEDY = "run scripts/prepare_own.py again"
TEST = "image of a test split"
TWICE = "second annotation file of one image"
SHOWN = 10


def convert(options: Options) -> Written:
    """Make `options.root` from `options.source`; a second run goes on where the first stopped.

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


def _info(options: Options) -> dict[str, Any]:
    return {
        "description": "Panoptic annotations made from others",
        "prepared_by": PREPARED_BY,
        "source": str(options.source.resolve()) if options.source is not None else "",
        "val": options.val,
        "seed": options.seed,
    }


def _check_root(options: Options, info: Mapping[str, Any]) -> None:
    """The root is new, or was made by this command from the same source, so that nobody's files are replaced."""
    root, source = options.root.resolve(), Path(info["source"])
    if root == source or source.is_relative_to(root):
        raise ValueError(f"--root {options.root} is the source itself or around it: choose a folder of its own.")
    before = _earlier(options.root)
    if before is None:
        return
    if before.get("prepared_by") != PREPARED_BY:
        raise ValueError(f"--root {options.root} holds annotations of another origin: choose a folder of its own.")
    if before.get("source") != info["source"]:
        raise ValueError(
            f"--root {options.root} was made from {before.get('source')}: choose another --root, or delete it."
        )


def _earlier(root: Path) -> dict[str, Any] | None:
    """The `info` of an earlier result; None if there is none."""
    for split in SPLITS:
        file = annotation_file(root, split)
        if file.is_file():
            try:
                content = json.loads(file.read_bytes())
            except ValueError:
                return {}
            return dict(content.get("info") or {}) if isinstance(content, dict) else {}
    return None


def describe(source: Source, rules: Rules, options: Options) -> str:
    """What the source was taken for, and what that means for pixels that nobody annotated."""
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
    before = _earlier(options.root)
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
    lines.append(f"{options.root} is ready: train with dataset=coco_format dataset.root={options.root}")
    return "\n".join(lines)


def check(options: Options) -> list[Finding]:
    """Everything that is wrong with a prepared folder, whoever made it."""
    findings: list[Finding] = []
    classes = {}
    for split in SPLITS:
        file = annotation_file(options.root, split)
        try:
            files = files_at(options.root / split, file.with_suffix(""), file)
            classes[split] = load_categories(str(file))
        except (FileNotFoundError, ValueError) as error:
            findings.append(Finding(str(file), str(error).rstrip("."), REMEDY))
            continue
        findings += check_split(files, classes[split], REMEDY, None, options.workers)
    names = {split: [(c.id, c.name, c.is_thing) for c in found.classes] for split, found in classes.items()}
    if len(names) == 2 and names["train"] != names["val"]:
        findings.append(Finding(str(annotation_file(options.root, "val")), "has other classes than training", REMEDY))
    return findings + _shared(options.root)


def _shared(root: Path) -> list[Finding]:
    """Images that are byte by byte the same in training and validation."""
    by_size: dict[int, list[Path]] = {}
    for split in SPLITS:
        for file in sorted((root / split).glob("*")):
            if file.is_file():
                by_size.setdefault(file.stat().st_size, []).append(file)
    findings = []
    for files in by_size.values():
        seen = {file.read_bytes(): file for file in files if file.parent.name == "train"} if len(files) > 1 else {}
        for file in files:
            twin = seen.get(file.read_bytes()) if seen and file.parent.name == "val" else None
            if twin is not None:
                problem = f"is the same image as {twin}"
                findings.append(Finding(str(file), problem, "remove one, or validation flatters", is_note=True))
    return findings


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

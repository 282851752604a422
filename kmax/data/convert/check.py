"""Checks of a prepared folder of own data: those of the published datasets, and some more."""

from __future__ import annotations

from pathlib import Path

from kmax.categories import load_categories
from kmax.data.convert.options import Options
from kmax.data.convert.prepared import SPLITS, annotation_file
from kmax.data.layouts import files_at
from kmax.data.prepare.check import Finding, check_split

REMEDY = "run scripts/prepare_own.py again"


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
    """Images that are identical, byte by byte, in training and validation."""
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

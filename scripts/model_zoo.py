"""Parameters and floating-point operations of the published models, and the tables of docs/model_zoo.md.

    python scripts/model_zoo.py [NAME or EXPERIMENT[:FAMILY] …] [--size 641 641]
    python scripts/model_zoo.py --page docs/model_zoo.md       # rewrite its tables from the registry

Counted at the evaluation size, on `meta` tensors: no memory, no weights, no GPU. One multiplication with its addition
counts as two operations. The auxiliary semantic head, which only training uses, is left out.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from kmax.categories import load_categories
from kmax.checkpoint.published import Published, published
from kmax.config.build import model_from_options
from kmax.config.compose import compose_config, conf_dir, run_options
from kmax.config.explain import run_or_explain
from kmax.files import replacing

MARK = re.compile(r"<!-- table: (.+?) -->\n.*?<!-- end -->", re.DOTALL)
"""Marks around a table in the page, with its name `TITLE, FAMILY, CODE`."""
HOSTS = {"drive.google.com": "Google Drive", "huggingface.co": "Hugging Face", "storage.googleapis.com": "Google Cloud"}


class Cost(NamedTuple):
    """Millions of parameters, and billions of operations for one image of `size` (H, W)."""

    parameters: float
    operations: float
    size: tuple[int, int]


def cost(
    experiment: str, family: str | None = None, size: Sequence[int] | None = None, overrides: Sequence[str] = ()
) -> Cost:
    """The cost of a configuration at inference.

    Args:
        experiment: the name of a file in conf/experiment.
        family: instead of the experiment's own.
        size: (H, W) instead of the dataset's.
        overrides: further ones, as on the command line.
    """
    chosen = [f"model.family={family}"] if family else []
    plain = ("~callbacks", "logger=none", "backbone.pretrained=false")
    options = run_options(compose_config(experiment, *plain, *chosen, *overrides))
    height, width = size or options.dataset.size
    with torch.device("meta"):
        classes = load_categories(options.dataset.categories).num_classes
        model = model_from_options(options.backbone, options.model, classes).eval()
        images = torch.empty(1, 3, height, width)
    model.semantic_head = None
    model.requires_grad_(False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images, coarse=False)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters / 1e6, counter.get_total_flops() / 1e9, (height, width))


def countable() -> dict[str, Published]:
    """The published models that have an experiment."""
    known = {file.stem for file in (conf_dir() / "experiment").glob("*.yaml")}
    return {name: entry for name, entry in published().items() if entry.experiment in known}


def cost_of(name: str, size: Sequence[int] | None = None) -> Cost:
    """The cost of a published model, or of an `experiment[:family]`."""
    if name not in published():
        experiment, _, family = name.partition(":")
        return cost(experiment, family or None, size)
    entry = published()[name]
    kmax = entry.family == "kMaX-DeepLab"
    return cost(entry.experiment, entry.format if kmax else None, size or entry.size, entry.overrides)


def tables() -> dict[str, str]:
    """The page's tables by their titles."""
    groups = groupby(published().values(), lambda entry: (entry.title, entry.family, entry.code))
    return {", ".join(key): "\n".join(table(list(entries))) for key, entries in groups}


def table(entries: list[Published]) -> Iterator[str]:
    """The lines of one table, a row per file; columns that no file has are left out."""
    numbers = list(dict.fromkeys(number for entry in entries for number in entry.published))
    models = any(entry.experiment for entry in entries)
    costs = ["input", *numbers, "parameters (M)", "GFLOPs"] if models else []
    yield f"| name | model | download | {''.join(f'{column} | ' for column in costs)}license | command |"
    yield "| " + " | ".join(["---"] * (5 + len(costs))) + " |"
    for entry in entries:
        row = [
            f"`{entry.name}`",
            entry.model,
            links(entry),
            *cells(entry, numbers),
            entry.license,
            f"`{command(entry)}`",
        ]
        yield "| " + " | ".join(row) + " |"


def cells(entry: Published, numbers: Sequence[str]) -> list[str]:
    """Size, published numbers and costs of a model; nothing for a backbone's weights."""
    if entry.size is None:
        return []
    reported = [str(entry.published.get(number, "")) for number in numbers]
    return [f"{entry.size[0]}×{entry.size[1]}", *reported, str(entry.parameters or ""), str(entry.gflops or "")]


def links(entry: Published) -> str:
    """Where the published file is."""
    named = [f"[{next(title for host, title in HOSTS.items() if host in url)}]({url})" for url in entry.urls]
    return ", ".join(named)


def command(entry: Published) -> str:
    """The command that uses a published file."""
    if entry.backbone:
        options = "experiment=coco_max_deeplab_…" if "max_deeplab" in entry.backbone else "… model.family=deeplab2"
        return f"python train.py {options} backbone.pretrained={entry.name}"
    if entry.variants:
        return f"python scripts/convert_weights.py --download {entry.name} --images photos"
    return f"python evaluate.py ckpt={entry.name} dataset.root=data/{entry.dataset}"


def write_page(path: Path) -> None:
    """Rewrite the tables of the page between their marks.

    Raises:
        ValueError: a mark names no table, or a table has no mark.
    """
    text, found = path.read_text(encoding="utf-8"), tables()
    marks = MARK.findall(text)
    if sorted(marks) != sorted(found):
        odd = sorted(set(marks) ^ set(found))
        raise ValueError(f"{path} and the published files differ in their tables: {'; '.join(odd) or 'one twice'}.")
    with replacing(path) as file:
        file.write_text(
            MARK.sub(lambda mark: f"<!-- table: {mark[1]} -->\n{found[mark[1]]}\n<!-- end -->", text), encoding="utf-8"
        )


def run(arguments: argparse.Namespace) -> None:
    """Write the page, or print a row per configuration."""
    if arguments.page:
        write_page(Path(arguments.page))
        return
    rows = Table("configuration", "size", "parameters (M)", "GFLOPs")
    for name in arguments.configuration or countable():
        found = cost_of(name, arguments.size)
        size = f"{found.size[0]}×{found.size[1]}"
        rows.add_row(name, size, f"{found.parameters:.1f}", f"{found.operations:.0f}")
    Console().print(rows)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configuration", nargs="*", metavar="NAME")
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="instead of the dataset's")
    parser.add_argument("--page", metavar="FILE", help="rewrite the tables of this page")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_or_explain(run, parse())

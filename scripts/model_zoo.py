"""Parameters and floating-point operations of the published configurations, for docs/model_zoo.md.

    python scripts/model_zoo.py [EXPERIMENT …] [--size 641 641]

A configuration is an experiment, or `experiment:deeplab2` for its TensorFlow twin. Counted at the evaluation size, on
`meta` tensors: no memory, no weights, no GPU. One multiplication with its addition counts as two operations. The
auxiliary semantic head, which only training uses, is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from kmax.categories import load_categories
from kmax.config.build import model_from_options
from kmax.config.compose import compose_config, conf_dir, run_options
from kmax.config.explain import run_or_explain

DATASETS = ("coco", "cityscapes", "ade20k")


class Cost(NamedTuple):
    """Millions of parameters, and thousand millions of operations for one image of `size` (H, W)."""

    parameters: float
    operations: float
    size: tuple[int, int]


def cost(experiment: str, family: str | None = None, size: Sequence[int] | None = None) -> Cost:
    """What a configuration costs at inference.

    Args:
        experiment: the name of a file in conf/experiment.
        family: instead of the experiment's own.
        size: (H, W) instead of the dataset's.
    """
    overrides = [f"model.family={family}"] if family else []
    options = run_options(
        compose_config(experiment, "~callbacks", "logger=none", "backbone.pretrained=false", *overrides)
    )
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


def published() -> list[str]:
    """The experiments of a published dataset with a backbone, and the TensorFlow twins of those that have one."""
    folder = conf_dir() / "experiment"
    backbones = sorted(file.stem for file in (conf_dir() / "backbone").glob("*.yaml"))
    names = [f"{dataset}_{backbone}" for dataset in DATASETS for backbone in backbones]
    names = [name for name in names if (folder / f"{name}.yaml").is_file()]
    return [*names, *(f"{name}:deeplab2" for name in names if not name.endswith("max_s"))]


def run(arguments: argparse.Namespace) -> None:
    """Print a row per configuration."""
    table = Table("configuration", "size", "parameters (M)", "GFLOPs")
    for entry in arguments.configuration or published():
        experiment, _, family = entry.partition(":")
        found = cost(experiment, family or None, arguments.size)
        size = f"{found.size[0]}×{found.size[1]}"
        table.add_row(entry, size, f"{found.parameters:.1f}", f"{found.operations:.0f}")
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configuration", nargs="*", metavar="EXPERIMENT[:FAMILY]")
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="instead of the dataset's")
    run_or_explain(run, parser.parse_args())

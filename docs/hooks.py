"""Fills `<!-- options: … -->` in a page with a table of the options, taken from the dataclasses that declare them."""

from __future__ import annotations

import re
from typing import Any

from kmax.config.options import TrainerOptions
from kmax.config.schema import ROOTS
from kmax.data.options import DatasetOptions
from kmax.inference.options import InferenceOptions
from kmax.losses.options import LossOptions
from kmax.model.options import BackboneOptions, ModelOptions
from kmax.optim.options import OptimizerOptions
from kmax.options import describe
from kmax.strategy.options import StrategyOptions

SECTIONS: dict[str, type] = {
    "backbone": BackboneOptions,
    "model": ModelOptions,
    "dataset": DatasetOptions,
    "inference": InferenceOptions,
    "loss": LossOptions,
    "optimizer": OptimizerOptions,
    "strategy": StrategyOptions,
    "trainer": TrainerOptions,
}


def table(name: str) -> str:
    """A Markdown table of a section's options, or of a program's: option, default, choices, meaning."""
    kind, prefix = (SECTIONS[name], f"{name}.") if name in SECTIONS else (ROOTS[name], "")
    rows = [
        f"| `{found.name}` | {f'`{found.default}`' if found.default else '*set by the recipe*'} "
        f"| {found.choices or found.kind} | {found.meaning} |"
        for found in describe(kind, prefix)
    ]
    return "\n".join(["| option | default | values | meaning |", "| --- | --- | --- | --- |", *rows])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return re.sub(r"<!-- options: (\w+) -->", lambda match: table(match[1]), markdown)

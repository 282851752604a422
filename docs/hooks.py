"""Fills `<!-- options: … -->` in a page with a table of the options, taken from the dataclasses that declare them,
and `<!-- groups -->` with the configuration groups."""

from __future__ import annotations

import re
from typing import Any

from kmax.config.compose import conf_dir
from kmax.config.help import GROUPS
from kmax.config.options import PlanOptions, TrackingOptions, TrainerOptions, TrainOptions
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
    "plan": PlanOptions,
    "tracking": TrackingOptions,
}


def table(name: str) -> str:
    """A Markdown table of a section's options, or of a program's own: option, default, choices, meaning."""
    kind, prefix = (SECTIONS[name], f"{name}.") if name in SECTIONS else (ROOTS[name], "")
    rows = [
        f"| `{found.name}` | {f'`{found.default}`' if found.default else empty(name, found.kind)} "
        f"| {found.choices or found.kind} | {found.meaning} |"
        for found in describe(kind, prefix)
        if name in SECTIONS or "." not in found.name  # sections have tables of their own
    ]
    return "\n".join(["| option | default | values | meaning |", "| --- | --- | --- | --- |", *rows])


def empty(name: str, kind: str) -> str:
    """The default of an option that has none."""
    if kind == "a section":
        return "`{}`"
    return "*required*" if name in ROOTS and ROOTS[name] is not TrainOptions else "*set by the recipe*"


def groups() -> str:
    """A Markdown table of the configuration groups and their files."""
    found = [(group, sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))) for group in GROUPS]
    rows = [f"| `{group}` | {', '.join(f'`{name}`' for name in names)} |" for group, names in found if names]
    return "\n".join(["| group | choices |", "| --- | --- |", *rows])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    markdown = markdown.replace("<!-- groups -->", groups())
    return re.sub(r"<!-- options: (\w+) -->", lambda match: table(match[1]), markdown)

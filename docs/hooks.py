"""Fills `<!-- options: … -->` in a page with a table of the options, taken from the schema of the configuration."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from kmax.config import schema

SECTIONS = {
    "backbone": schema.BackboneConfig,
    "model": schema.ModelConfig,
    "dataset": schema.DatasetConfig,
    "inference": schema.InferenceConfig,
    "loss": schema.LossConfig,
    "optimizer": schema.OptimizerConfig,
    "strategy": schema.StrategyConfig,
    "trainer": schema.TrainerConfig,
}


def _type(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) and "[" not in str(annotation) else str(annotation)
    return re.sub(r"\b\w+\.", "", text).replace("|", "or")


def _default(field: Any) -> str:
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    if value == "???":
        return "*set by the recipe*"
    return "" if is_dataclass(value) else f"`{'null' if value is None else value}`"


def table(section: str) -> str:
    """A Markdown table: option, type, default."""
    rows = [f"| `{section}.{f.name}` | {_type(f.type)} | {_default(f)} |" for f in fields(SECTIONS[section])]
    return "\n".join(["| option | type | default |", "| --- | --- | --- |", *rows])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return re.sub(r"<!-- options: (\w+) -->", lambda match: table(match[1]), markdown)

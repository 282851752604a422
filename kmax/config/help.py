"""`--help` of each program: its own options with meaning, values and defaults."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from kmax.config.schema import ROOTS
from kmax.inference.options import InferenceOptions
from kmax.options import Described, describe

GROUPS = (
    "experiment",
    "dataset",
    "backbone",
    "model",
    "strategy",
    "optimizer",
    "logger",
    "callbacks",
    "sweep",
    "debug",
)
"""Configuration groups of `train.py`, the most used first."""
OPEN = {"inference": InferenceOptions}
"""Sections that accept a part of the options of another section."""
INDENT = 6


def help_text(program: str, description: str, conf: Path) -> str:
    """What `--help` prints.

    Args:
        program: a key of `ROOTS`.
        description: what the program does; the docstring of its script.
        conf: the folder of configuration files.
    """
    width = max(60, min(shutil.get_terminal_size().columns, 100))
    parts = [description.strip(), "", "Options (NAME=VALUE):", ""]
    for found in describe(ROOTS[program]):
        parts += _option(found, width)
        if found.name in OPEN:
            parts += [line for inner in describe(OPEN[found.name], f"{found.name}.") for line in _option(inner, width)]
    groups = [name for name in GROUPS if (conf / name).is_dir()] if program == "train" else ["strategy"]
    if program in ("train", "evaluate"):
        parts += ["", "Groups of options in conf/ (GROUP=NAME):", ""]
        for group in groups:
            names = ", ".join(sorted(file.stem for file in (conf / group).glob("*.yaml")))
            parts += textwrap.wrap(f"{group}: {names}", width, initial_indent="  ", subsequent_indent=" " * INDENT)
    parts += ["", "--cfg job shows the values of a configuration, --hydra-help Hydra's own options."]
    return "\n".join(parts)


def _option(found: Described, width: int) -> list[str]:
    default = f" (default {found.default})" if found.default and not found.default.startswith("${") else ""
    values = f" [{found.choices}]" if found.choices else ""
    return [
        f"  {found.name}{default}",
        *textwrap.wrap(f"{found.meaning}{values}", width, initial_indent=" " * INDENT, subsequent_indent=" " * INDENT),
    ]


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether the command line asks for `--help`."""
    return bool({"--help", "-h"} & set(arguments[1:]))

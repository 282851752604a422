"""`~` means the home folder in every option, not only where a shell expands it."""

from __future__ import annotations

import os
from collections.abc import Sequence

FOLDERS_OF_RUNS = ("hydra.run.dir", "hydra.sweep.dir")


def at_home(value: object) -> object:
    """A configuration in which `~` at the beginning of a text, hence of a path, is the home folder."""
    if isinstance(value, dict):
        return {key: at_home(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [at_home(item) for item in value]
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value


def home_in_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line whose folders of runs, which Hydra makes itself, begin with the home folder instead of `~`."""
    found = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        unquoted = value.strip("'\"")
        moved = key in FOLDERS_OF_RUNS and unquoted.startswith("~")
        found.append(f"{key}={os.path.expanduser(unquoted)}" if moved else argument)
    return found

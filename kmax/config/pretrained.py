"""Checkpoints by path or by their name in the model zoo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kmax.checkpoint.download import local_weights
from kmax.checkpoint.published import Published, published
from kmax.config.convert import Conversion, Told, convert


def checkpoint_path(name: str | Path) -> Path:
    """The file of a checkpoint: a path as it is, a name of the model zoo as the file in the user's cache, which is
    downloaded and converted if it is not there yet. An existing file or folder of that name takes precedence.

    Raises:
        ValueError: weights that are not available, or no checkpoint of a whole model.
    """
    path = Path(name).expanduser()
    if str(name) not in published() or path.exists():
        return path
    entry = published()[str(name)]
    if entry.backbone:
        raise ValueError(
            f"{entry.name} is a backbone's ImageNet weights, not a whole model: train with "
            f"backbone.name={entry.backbone} backbone.pretrained={entry.name}."
        )
    return download(entry)[0]


def download(entry: Published, told: Told | None = None) -> tuple[Path, Conversion | None]:
    """The converted file of a published model in the user's cache, and, if it was converted now, what it was recognized
    as.

    Raises:
        ValueError: as `local_weights` and `convert`.
    """
    done: list[Conversion] = []
    told = replace(told or Told(), entry=entry)
    path = local_weights(entry, lambda source, target: done.append(convert(source, target, told)))
    return path, done[0] if done else None

"""Checkpoints on disk: written completely or not at all, rotated, and found for resuming."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from kmax.checkpoint.own import CONFIG_KEY, CheckpointDict, read_checkpoint
from kmax.files import Json, replacing
from kmax.options import Plain

LAST, PREVIOUS, NEXT = "last.ckpt", "previous.ckpt", "next.ckpt"
LEARNING_SECTIONS = ("backbone", "dataset", "model", "loss", "optimizer", "seed")
"""Sections of a configuration that decide what is learned."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its final name, then rename it: a reader sees the old file or the new one."""

    def save_checkpoint(self, checkpoint: CheckpointDict, path: str | Path, storage_options: object = None) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            ValueError: it cannot be written, e.g. because the disk is full; the old file at `path` is unchanged.
        """
        path = Path(path)
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError where its archive cannot be finished
            raise ValueError(_cannot_write(path, error)) from error


def _cannot_write(path: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
    existing = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(existing).free / 1e9
    return (
        f"The checkpoint {path} cannot be written ({reason}; {free:.1f} GB are free there). Older checkpoints are "
        "untouched: make room, then start the run again with the same command."
    )


def rotate(folder: Path, new: Path) -> None:
    """Make `new` the last checkpoint of `folder`, and the former last one the previous one."""
    last = folder / LAST
    if last.exists():
        last.replace(folder / PREVIOUS)
    new.replace(last)


def checkpoint_to_resume(wanted: str | None, folder: str | None, config: Plain) -> Path | None:
    """The checkpoint from which a run continues, or None if it starts from the beginning.

    Args:
        wanted: a path, `never`, or `auto` for the newest readable checkpoint in `folder`.
        folder: of the callback `ResumeCheckpoint`; None without one.
        config: all options of the run as plain containers; those of `LEARNING_SECTIONS` must be those of the
            checkpoint.

    Raises:
        FileNotFoundError, ValueError: the path leads to no checkpoint; the folder holds a run with other options
            of learning, or only damaged checkpoints.
    """
    if wanted in (None, "never"):
        return None
    if wanted != "auto":
        if "optimizer_states" not in read_checkpoint(wanted):
            raise ValueError(
                f"{wanted} holds weights only, no run to go on with: start from them by init_from={wanted}."
            )
        return Path(wanted)
    damaged: list[str] = []
    if folder is None:
        return None
    for path in (Path(folder) / name for name in (LAST, PREVIOUS)):
        if not path.is_file():
            continue
        try:
            checkpoint = read_checkpoint(path)
        except ValueError as error:
            damaged.append(str(path))
            warnings.warn(f"{error} Looking for the one before.", stacklevel=2)
            continue
        _require_same_learning(config, checkpoint[CONFIG_KEY], path)
        return path
    if damaged:
        raise ValueError(
            f"{' and '.join(damaged)} cannot be read: set resume=PATH to continue from another checkpoint, or "
            "resume=never to start afresh."
        )
    return None


def _require_same_learning(config: Plain, found: Plain, path: Path) -> None:
    own, other = (
        _flat({key: config[key] for key in LEARNING_SECTIONS}),
        _flat({key: found.get(key) for key in LEARNING_SECTIONS}),
    )
    changed = sorted(key for key in own.keys() | other.keys() if own.get(key) != other.get(key))
    if changed:
        key = changed[0]
        raise ValueError(
            f"{path} is of a run with {key}={other.get(key)}, not {own.get(key)} ({len(changed)} settings differ): "
            f"change the folder of the run, continue all the same with resume={path}, or start afresh with "
            "resume=never."
        )


def _flat(config: Mapping[str, object], prefix: str = "") -> Json:
    flat: Json = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat.update(_flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
    return flat

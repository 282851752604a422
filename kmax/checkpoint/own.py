"""Checkpoints of ours: weights with the configuration and the classes that they need, in one file.

A `.ckpt` is what Lightning writes in training; a `.safetensors` carries configuration and classes as JSON in its
header; a folder pulled from a hub holds one of the latter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from kmax.checkpoint.foreign import RefusedError, load_torch
from kmax.checkpoint.published import suggestion
from kmax.files import replacing

CheckpointDict = dict[str, Any]
"""The content of a checkpoint file, under the keys of Lightning and ours."""
CONFIG_KEY = "kmax_config"
CATEGORIES_KEY = "kmax_categories"
SOURCE_KEY = "kmax_source"
"""Key of the source of converted weights: url, license, published numbers, …"""
CARRIED = (CONFIG_KEY, CATEGORIES_KEY, SOURCE_KEY)
FILE_IN_FOLDER = "model.safetensors"
CONVERT = "python scripts/convert_weights.py"


def read_checkpoint(path: str | Path) -> CheckpointDict:
    """A checkpoint of ours, on the CPU: `state_dict`, `kmax_config`, `kmax_categories`, and in a
    `.ckpt` from training also what else Lightning stores.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or not a checkpoint of ours; nothing in it is executed.
    """
    named, path = str(path), Path(path)
    if path.is_dir():
        path = path / FILE_IN_FOLDER
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no checkpoint {path}: give a .ckpt that train.py wrote, what {CONVERT} made of another, or a "
            f"name of the model zoo{suggestion(named)}."
        )
    try:
        checkpoint = _read_safetensors(path) if path.suffix == ".safetensors" else load_torch(path)
    except RefusedError as error:
        raise ValueError(
            f"{path} asks for {error}, which is neither a tensor nor plain data: the file is refused, nothing in it "
            "was executed."
        ) from error
    except Exception as error:  # torch raises half a dozen types of exceptions for damaged or foreign files
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): it is damaged or foreign "
            f"(published ones: {CONVERT} {path} TARGET)."
        ) from error
    if not isinstance(checkpoint, dict) or not {CONFIG_KEY, CATEGORIES_KEY, "state_dict"} <= checkpoint.keys():
        raise ValueError(_incomplete(checkpoint, path))
    return checkpoint


def is_ours(names: Iterable[object]) -> bool:
    """Whether entries have the names of a model or module of ours."""
    starts = tuple(f"{prefix}transformer_decoder.layers." for prefix in ("", "model."))
    return any(str(name).startswith(starts) for name in names)


def _incomplete(content: object, path: Path) -> str:
    """Why a readable file is not a checkpoint, and the remedy."""
    nested = content.get("state_dict") if isinstance(content, dict) else None
    if is_ours(content if isinstance(content, dict) else ()) or is_ours(nested or ()):
        return (
            f"{path} holds weights of kmax without the configuration and classes that they need: take the .ckpt of the "
            f"run, or {CONVERT} {path} TARGET --experiment NAME with the experiment that they were trained with."
        )
    return (
        f"{path} carries no kmax configuration: if it is a published checkpoint, {CONVERT} {path} TARGET "
        "makes it one of ours."
    )


def write_checkpoint(path: str | Path, checkpoint: CheckpointDict) -> None:
    """Write weights, configuration and classes, and nothing else, as a `.ckpt` or a `.safetensors`.

    Args:
        checkpoint: `state_dict`, `kmax_config`, `kmax_categories`, and `kmax_source` of converted weights.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    if path.suffix not in (".ckpt", ".safetensors"):
        raise ValueError(f"{path} should end in .ckpt or .safetensors: the suffix tells which to write.")
    state = {name: value.detach().contiguous() for name, value in checkpoint["state_dict"].items()}
    carried = {key: checkpoint[key] for key in CARRIED if key in checkpoint}
    if path.suffix == ".ckpt":
        trained = {"pytorch-lightning_version": version("lightning"), "epoch": 0, "global_step": 0}
        with replacing(path) as file:
            torch.save({**trained, "state_dict": state, **carried}, file)
    else:
        header = {"format": "pt", **{key: json.dumps(value) for key, value in carried.items()}}
        with replacing(path) as file:
            save_file(state, file, header)


def _read_safetensors(path: Path) -> CheckpointDict:
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        state: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    carried = {key: json.loads(header[key]) for key in CARRIED if key in header}
    return {"state_dict": state, **carried}

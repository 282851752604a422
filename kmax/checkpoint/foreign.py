"""Reading foreign checkpoint files, whatever their content, without executing anything in them.

A pickle is a program. The readers here allow what rebuilds tensors and arrays, and refuse a file that asks for more.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from kmax.checkpoint.tensorflow import CheckpointReader, DamagedError

WRAPPERS = ("model", "state_dict")
"""Keys under which published files keep their entries."""
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_LEGACY_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"


def read_entries(path: str | Path) -> dict[str, Tensor]:
    """The entries of a foreign checkpoint by their names there, on the CPU.

    Args:
        path: a file of PyTorch (`.pth`), pickle (`.pkl`) or safetensors, told by its content, its entries at the top
            or under `model` or `state_dict`; or a TensorFlow checkpoint: prefix, `.index` file, or folder.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the file is damaged, asks for something other than tensors and arrays, or holds no weights.
    """
    path = Path(path)
    prefix = tensorflow_prefix(path)
    if prefix is not None:
        return _read_tensorflow(prefix)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no checkpoint {path}: give a .pth, .pkl or .safetensors file, or a TensorFlow checkpoint's "
            "folder or prefix (its path without .index)."
        )
    try:
        content = _read_file(path)
    except RefusedError as error:
        raise ValueError(
            f"{path} asks for {error}, which is neither a tensor nor an array: the file is refused, nothing in it was "
            "executed."
        ) from error
    except Exception as error:  # the readers raise a dozen types of exceptions for damaged files
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): it is damaged, truncated or "
            "no checkpoint."
        ) from error
    return _entries(content, path)


class RefusedError(Exception):
    """A file asked for something that is not allowed."""


def _read_file(path: Path) -> object:
    with path.open("rb") as file:
        start = file.read(len(_LEGACY_TORCH))
    if start.startswith((b"PK", _LEGACY_TORCH)):
        return load_torch(path)
    if start[8:10] == b'{"' and int.from_bytes(start[:8], "little") < path.stat().st_size:
        from safetensors.torch import load_file

        return load_file(path)
    with path.open("rb") as file:
        return _Unpickler(file, encoding="latin1").load()


def load_torch(file: Path | BinaryIO) -> Any:
    """`torch.load` of tensors and arrays."""
    with torch.serialization.safe_globals(list(_numpy_globals())):
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            asked = re.search(r"GLOBAL (\S+)|unrecognized function (.+?) |but got (.+)", str(error))
            if asked:
                raise RefusedError(next(group for group in asked.groups() if group)) from error
            raise


def _numpy_globals() -> list[Any]:
    """What `torch.load` must know to rebuild arrays and numbers of NumPy, under its old and new names."""
    multiarray = np.ones(1).__reduce__()[0].__module__  # numpy._core.multiarray since NumPy 2
    names = {multiarray, "numpy.core.multiarray", "numpy._core.multiarray"}
    known: list[Any] = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd")]
    known += [(function, f"{name}.{function.__name__}") for name in names for function in _numpy_functions()]
    return known


def _numpy_functions() -> list[Callable[..., object]]:
    """NumPy's own that rebuild an array, a number, and an array of pickle's protocol 5."""
    array = np.ones(1)
    return [array.__reduce__()[0], np.float64(0).__reduce__()[0], array.__reduce_ex__(5)[0]]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """`_codecs.encode`, by which old pickles spell bytes; other encodings are not needed."""
    if encoding != "latin1":
        raise RefusedError(f"_codecs.encode({encoding!r})")
    return text.encode("latin1")


def _load_storage(content: bytes) -> object:
    return load_torch(io.BytesIO(content))


class _Unpickler(pickle.Unpickler):
    """Builds containers, numbers, strings, arrays and tensors; anything else is refused."""

    def find_class(self, module: str, name: str) -> object:
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module.startswith(("numpy.core.", "numpy._core.")):
            for function in _numpy_functions():
                if function.__name__ == name:
                    return function
        known: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("_codecs", "encode"): _encode,
            ("torch.storage", "_load_from_bytes"): _load_storage,
            ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
            ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        }
        if (module, name) in known:
            return known[module, name]
        raise RefusedError(f"{module}.{name}")


def _entries(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a file's content, out of their wrapper."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds no weights: expected names with tensors or arrays.")
    entries = {}
    for name, value in content.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            value = torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape))
        if not isinstance(value, Tensor):
            raise ValueError(f"{path}: {name} is a {type(value).__name__}, not a tensor or array of numbers.")
        entries[str(name)] = value
    return entries


def tensorflow_prefix(path: Path) -> str | None:
    """The prefix of the TensorFlow checkpoint that `path` means: itself, its index, or the newest in a folder.

    Raises:
        FileNotFoundError: a folder without one.
    """
    if path.is_dir():
        indices = sorted(path.glob("*.index"), key=lambda f: (_step(f), f.name))
        if not indices:
            raise FileNotFoundError(f"There is no TensorFlow checkpoint (*.index) in the folder {path}.")
        return str(indices[-1].with_suffix(""))
    if path.suffix == ".index" and path.is_file():
        return str(path.with_suffix(""))
    return str(path) if not path.is_file() and Path(f"{path}.index").is_file() else None


def _step(index: Path) -> int:
    """The training step in a name like ckpt-150000.index."""
    found = re.search(r"-(\d+)$", index.stem)
    return int(found.group(1)) if found else -1


def _read_tensorflow(prefix: str) -> dict[str, Tensor]:
    """The variables of a TensorFlow checkpoint, without object graph, counters and optimizer slots."""
    try:
        reader = CheckpointReader(prefix)
        values = {name: reader.read(name) for name in reader.locations if _is_weight(name)}
    except (DamagedError, OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(
            f"{prefix} cannot be read as a TensorFlow checkpoint ({reason}): an .index or .data file is "
            "damaged, truncated or missing."
        ) from error
    entries = {name.removesuffix(SUFFIX): value for name, value in values.items() if value is not None}
    if not entries:
        raise ValueError(f"{prefix} holds no weights.")
    return entries


def _is_weight(name: str) -> bool:
    first = name.split("/", 1)[0]
    ignored = first in ("_CHECKPOINTABLE_OBJECT_GRAPH", "optimizer", "save_counter", "global_step", "step")
    return not ignored and "/.OPTIMIZER_SLOT/" not in name

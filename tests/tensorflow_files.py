"""Writing and reading real TensorFlow checkpoint files with TensorFlow itself, with what a training leaves in them
besides the weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmax.checkpoint.foreign import SUFFIX


def tensorflow() -> Any:
    """TensorFlow; the test is skipped where there is none."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install 'kmax-deeplab[tf]'")


def write_checkpoint(prefix: Path, variables: Mapping[str, np.ndarray]) -> Path:
    """A checkpoint of `variables`, an object graph, counters and two optimizer slots; skips without TensorFlow."""
    first = next(iter(variables))
    entries = {f"{name}{SUFFIX}": value for name, value in variables.items()}
    entries["_CHECKPOINTABLE_OBJECT_GRAPH"] = np.array(b"\x0a\x00")
    entries[f"save_counter{SUFFIX}"] = np.array(7, np.int64)
    entries[f"global_step{SUFFIX}"] = np.array(150000, np.int64)
    entries[f"optimizer/learning_rate{SUFFIX}"] = np.array(5e-4, np.float32)
    for slot in ("m", "v"):
        entries[f"{first}/.OPTIMIZER_SLOT/optimizer/{slot}{SUFFIX}"] = np.zeros_like(variables[first])
    return write_entries(prefix, entries)


def write_entries(prefix: Path, entries: Mapping[str, np.ndarray]) -> Path:
    """A checkpoint of these entries under their full names."""
    tf = tensorflow()
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(entries),
        shape_and_slices=[""] * len(entries),
        tensors=[tf.constant(value) for value in entries.values()],
    )
    return prefix


def read_with_tensorflow(prefix: Path) -> dict[str, np.ndarray]:
    """The variables that TensorFlow's own reader finds, without the suffix of their names."""
    reader = tensorflow().train.load_checkpoint(str(prefix))
    return {name.removesuffix(SUFFIX): np.array(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()}

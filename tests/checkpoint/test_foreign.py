"""Foreign files are read without executing anything; what is wrong with one ends in one sentence."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tensorflow_files import write_checkpoint

from kmax.checkpoint.foreign import read_entries, tensorflow_prefix

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor(7)}
ARRAYS = {name: value.numpy() for name, value in TENSORS.items()}


class Hostile:
    """Pickles to a call of `os.system`, which would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def pickled(content: Any, protocol: int) -> bytes:
    return pickle.dumps(content, protocol=protocol)


def saved(content: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
@pytest.mark.parametrize(
    "write",
    [
        lambda c: saved(c),
        lambda c: saved(c, zipped=False),
        *(lambda c, p=protocol: pickled(c, p) for protocol in (0, 2, 4, 5)),
    ],
    ids=["torch", "legacy torch", *(f"pickle {p}" for p in (0, 2, 4, 5))],
)
@pytest.mark.parametrize("values", [TENSORS, ARRAYS, OrderedDict(TENSORS)], ids=["tensors", "arrays", "ordered"])
def test_every_way_to_store_weights_is_read(write: Any, values: Any, wrapper: str | None, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    number = np.float64(0.5)  # published files also hold numbers like this one
    path.write_bytes(write({wrapper: values, "iteration": 3, "score": number} if wrapper else values))
    entries = read_entries(path)
    assert {name: (value.tolist(), value.dtype) for name, value in entries.items()} == {
        name: (value.tolist(), value.dtype) for name, value in TENSORS.items()
    }


def test_parameters_and_safetensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.pkl"
    path.write_bytes(pickled({"w": torch.nn.Parameter(torch.ones(2))}, 2))
    assert read_entries(path)["w"].tolist() == [1, 1]
    save_file(TENSORS, tmp_path / "s.safetensors")
    assert read_entries(tmp_path / "s.safetensors")["a.weight"].tolist() == TENSORS["a.weight"].tolist()


@pytest.mark.parametrize("wrap", [lambda h: h, lambda h: {"model": TENSORS, "extra": h}], ids=["whole", "hidden"])
@pytest.mark.parametrize(
    "write",
    [lambda c: pickled(c, 0), lambda c: pickled(c, 4), lambda c: saved(c), lambda c: saved(c, zipped=False)],
    ids=["pickle 0", "pickle 4", "torch", "legacy torch"],
)
def test_a_hostile_file_is_refused_by_name_and_not_executed(write: Any, wrap: Any, tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "hostile.pth"
    path.write_bytes(write(wrap(Hostile(mark))))
    with pytest.raises(ValueError, match=rf"asks for {os.system.__module__}\.system.*refused") as caught:
        read_entries(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_hostile_storage_inside_a_pickle_is_refused(tmp_path: Path) -> None:
    """A tensor in a plain pickle brings its storage as a file of its own: that one is a pickle, too."""
    mark = tmp_path / "executed"

    class Storage:
        def __reduce__(self) -> Any:
            return torch.storage._load_from_bytes, (saved(Hostile(mark)),)

    (tmp_path / "f.pkl").write_bytes(pickled({"model": Storage()}, 2))
    with pytest.raises(ValueError, match=r"asks for .*system"):
        read_entries(tmp_path / "f.pkl")
    assert not mark.exists()


@pytest.mark.parametrize("call", [b"cbuiltins\neval\n", b"cnumpy\nload\n", b"ccollections\nCounter\n"])
def test_only_what_rebuilds_tensors_and_arrays_is_admitted(call: bytes, tmp_path: Path) -> None:
    (tmp_path / "f.pkl").write_bytes(call + b"(S'1'\ntR.")
    with pytest.raises(ValueError, match=rf"asks for {call.split()[0][1:].decode()}\.{call.split()[1].decode()}"):
        read_entries(tmp_path / "f.pkl")


def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path: Path) -> None:
    whole = saved(TENSORS)
    files: dict[str, tuple[bytes, str]] = {
        "empty.pth": (b"", "damaged, truncated or no checkpoint"),
        "text.pth": (b"<html>404 not found</html>", "damaged, truncated or no checkpoint"),
        "truncated.pth": (whole[: len(whole) // 2], "damaged, truncated or no checkpoint"),
        "truncated.pkl": (pickled(ARRAYS, 4)[:-20], "damaged, truncated or no checkpoint"),
        "list.pkl": (pickled([1, 2], 4), "holds no weights"),
        "words.pkl": (pickled({"model": {"a": "word"}}, 4), "a is a str, not a tensor"),
        "objects.pkl": (pickled({"a": np.array([None])}, 4), "a is a ndarray, not a tensor or array of numbers"),
    }
    for name, (content, sentence) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=sentence) as caught:
            read_entries(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(ValueError, match="no checkpoint"):
        read_entries(tmp_path / "other.zip")
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        read_entries(tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match="no TensorFlow checkpoint"):
        read_entries(tmp_path)


def test_a_tensorflow_checkpoint_is_found_by_prefix_index_or_folder(tmp_path: Path) -> None:
    for step in (900, 10000):
        (tmp_path / f"ckpt-{step}.index").touch()
    newest = str(tmp_path / "ckpt-10000")
    for path in (newest, f"{newest}.index", tmp_path):
        assert tensorflow_prefix(Path(path)) == newest
    assert tensorflow_prefix(tmp_path / "ckpt-1") is None


@pytest.mark.long
def test_tensorflow_weights_come_without_the_rest(tmp_path: Path) -> None:
    prefix = write_checkpoint(tmp_path / "ckpt-5", ARRAYS)
    assert {name: value.tolist() for name, value in read_entries(prefix).items()} == {
        name: value.tolist() for name, value in ARRAYS.items()
    }
    data = next(tmp_path.glob("ckpt-5.data*"))
    data.write_bytes(data.read_bytes()[:10])
    with pytest.raises(ValueError, match="damaged, truncated or missing"):
        read_entries(prefix)
    data.unlink()
    with pytest.raises(ValueError, match="damaged, truncated or missing"):
        read_entries(prefix)
    (tmp_path / "ckpt-5.index").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged, truncated or missing"):
        read_entries(prefix)

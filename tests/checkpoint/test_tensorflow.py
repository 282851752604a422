"""TensorFlow's checkpoints are read without TensorFlow, byte for byte what its own reader reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tensorflow_files import read_with_tensorflow, write_checkpoint, write_entries

import golden_tools
from kmax.checkpoint.deeplab2 import from_deeplab2
from kmax.checkpoint.foreign import read_entries
from kmax.checkpoint.tensorflow import CheckpointReader, DamagedError

WRITTEN = golden_tools.GOLDEN / "tf/checkpoint/ckpt-5"
"""A checkpoint that TensorFlow 2.21 wrote."""
VALUES: dict[str, np.ndarray] = {
    "encoder/_stem/_conv/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) / 8,
    "encoder/_stem/_batch_norm/gamma": np.linspace(-1, 1, 5, dtype=np.float32),
    "steps": np.array(7, np.int64),
    "half": np.array([0.5, -2], np.float16),
    "double": np.array([[1 / 3]], np.float64),
    "flags": np.array([True, False]),
    "bytes": np.arange(5, dtype=np.uint8),
    "none": np.zeros((0, 3), np.float32),
}


def same(found: dict[str, torch.Tensor], expected: dict[str, np.ndarray]) -> bool:
    arrays = {name: value.numpy() for name, value in found.items()}
    assert arrays.keys() == expected.keys()
    return all(
        (arrays[name].dtype, arrays[name].shape, arrays[name].tobytes()) == (value.dtype, value.shape, value.tobytes())
        for name, value in expected.items()
    )


def test_every_kind_of_number_without_counters_graph_and_slots() -> None:
    """The file was written by TensorFlow, which this test does not need."""
    assert same(read_entries(WRITTEN), VALUES)


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_tools.TENSORFLOW)
def test_the_recorded_models_come_out_of_real_files_as_with_tensorflow(name: str, tmp_path: Path) -> None:
    """So that every recorded number that follows from the variables holds with either reader."""
    seeded = {key: golden_tools.recipe_tf.seeded_tensor_tf(key, shape) for key, shape in golden_tools.variables(name)}
    prefix = write_checkpoint(tmp_path / "ckpt-1", seeded)
    found, theirs = read_entries(prefix), read_with_tensorflow(prefix)
    assert same(found, seeded)
    assert same(found, {key: value for key, value in theirs.items() if key in seeded})
    is_thing = golden_tools.load_categories(golden_tools.TENSORFLOW[name][1]).is_thing
    ours, other = from_deeplab2(found, is_thing), from_deeplab2({key: theirs[key] for key in seeded}, is_thing)
    assert all(torch.equal(value, other[key]) for key, value in ours.items())


@pytest.mark.long
def test_an_index_of_many_blocks(tmp_path: Path) -> None:
    """More names than fit into one block of the table, which holds 256 KiB."""
    entries = {f"{number * 7919 % 3001:05d}{'/variable' * 40}": np.full(2, number, np.int32) for number in range(3000)}
    prefix = write_entries(tmp_path / "many", entries)
    assert (tmp_path / "many.index").stat().st_size > 4 << 18
    reader = CheckpointReader(prefix)
    assert reader.locations.keys() == entries.keys()
    for name in list(entries)[::97]:
        value = reader.read(name)
        assert value is not None
        assert value.tolist() == entries[name].tolist()


def test_damage_is_found_wherever_it_is(tmp_path: Path) -> None:
    """Every byte of the index but its footer, and of the data file, is under a checksum."""
    index, data = Path(f"{WRITTEN}.index").read_bytes(), Path(f"{WRITTEN}.data-00000-of-00001").read_bytes()
    copy = tmp_path / "ckpt"

    def write(index: bytes, data: bytes) -> None:
        Path(f"{copy}.index").write_bytes(index)
        Path(f"{copy}.data-00000-of-00001").write_bytes(data)

    write(index, data)
    assert same(read_entries(copy), VALUES)
    for length in (0, 10, len(index) // 2, len(index) - 1):
        write(index[:length], data)
        with pytest.raises(ValueError, match="damaged, truncated or missing") as caught:
            read_entries(copy)
        assert "\n" not in str(caught.value)
    location = CheckpointReader(WRITTEN).locations["double/.ATTRIBUTES/VARIABLE_VALUE"]
    spoiled = bytearray(data)
    spoiled[location.offset] ^= 1
    write(index, bytes(spoiled))
    with pytest.raises(ValueError, match=r"the bytes of double/\S+ are not those that were written"):
        read_entries(copy)
    for position in range(0, len(index) - 48, 3):
        changed = bytearray(index)
        changed[position] ^= 0x10
        write(bytes(changed), data)
        with pytest.raises(DamagedError, match="its index"):
            CheckpointReader(copy)


@pytest.mark.long
def test_what_never_occurs_is_refused(tmp_path: Path) -> None:
    """A variable in slices is what distributed savers of TensorFlow 1 wrote."""
    tf = pytest.importorskip("tensorflow")
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "sliced"),
        tensor_names=["a"],
        shape_and_slices=["4 0,2"],
        tensors=[tf.constant([1.0, 2.0])],
    )
    with pytest.raises(ValueError, match="a was saved in slices"):
        read_entries(tmp_path / "sliced")

"""Reading TensorFlow's checkpoints without TensorFlow.

A checkpoint is an index (`PREFIX.index`: a sorted table from name to location, shape and checksum) and data files with
the bare values. The table's format is LevelDB's: blocks of entries whose names share beginnings, each block followed by
its kind and a checksum, and a footer with the location of the index of blocks. Entries are protocol buffers
(TensorFlow's `tensor_bundle.proto`), of which only a few fields matter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import torch
from torch import Tensor

DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    19: torch.float16,
}
"""torch's dtype by TensorFlow's number (`types.proto`); text and all other types are not weights."""
_FOOTER, _TRAILER = 48, 5  # bytes at the end of a table, and of a block
_MAGIC = 0xDB4775248B80FB57
_MASK = 0xA282EAD8  # checksums are stored rotated and shifted, so that checksums of checksums differ


class DamagedError(Exception):
    """A checkpoint that contradicts its own checksums and lengths; the message tells where."""


@dataclass(frozen=True)
class Location:
    """Where a variable is: data file `shard`, `offset` and `size` in bytes, with its kind, shape and checksum."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool


class CheckpointReader:
    """The variables of a checkpoint by their full names.

    Args:
        prefix: the checkpoint's path without `.index`.

    Raises:
        DamagedError: the index is invalid.
        OSError: there is no index.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = str(prefix)
        entries = dict(_table(Path(f"{self.prefix}.index").read_bytes()))
        header = _fields(entries.pop(b"", b""))
        self.shards = _integer(header, 1, 1)
        if _integer(header, 2):
            raise DamagedError("its numbers are stored by a big-endian machine")
        whole = {name: value for name, value in entries.items() if not name.startswith(b"\0")}  # else: a slice of one
        self.locations = {name.decode(): _location(value) for name, value in whole.items()}

    def read(self, name: str) -> Tensor | None:
        """The value of a variable, on the CPU; None for text and other non-numeric types.

        Raises:
            DamagedError: its bytes are missing or do not match their checksum; or it was saved in slices.
            OSError: a data file is missing.
        """
        location = self.locations[name]
        if location.dtype not in DTYPES:
            return None
        if location.sliced:
            raise DamagedError(f"{name} was saved in slices: save it whole with TensorFlow")
        with Path(f"{self.prefix}.data-{location.shard:05d}-of-{self.shards:05d}").open("rb") as file:
            values = _bytes_at(file, location)
        dtype = DTYPES[location.dtype]
        count = int(torch.Size(location.shape).numel())
        if len(values) != count * dtype.itemsize or _masked(values) != location.checksum:
            raise DamagedError(f"the bytes of {name} are not those that were written")
        flat = torch.frombuffer(values, dtype=dtype) if count else torch.empty(0, dtype=dtype)
        return flat.reshape(location.shape)


def _bytes_at(file: BinaryIO, location: Location) -> bytearray:
    file.seek(location.offset)
    return bytearray(file.read(location.size))


def _masked(values: bytes | bytearray) -> int:
    """A CRC-32C as LevelDB and TensorFlow store it."""
    checksum = int(google_crc32c.value(bytes(values)))
    return (((checksum >> 15) | (checksum << 17)) + _MASK) & 0xFFFFFFFF


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All entries of a table, in order."""
    if len(content) < _FOOTER or struct.unpack("<Q", content[-8:])[0] != _MAGIC:
        raise DamagedError("its index is no table")
    try:
        meta, position = _handle(content, len(content) - _FOOTER)
        list(_block(content, *meta))  # empty, but it has a checksum
        (offset, size), _ = _handle(content, position)
        for _, handle in _block(content, offset, size):
            yield from _block(content, *_handle(handle, 0)[0])
    except (IndexError, struct.error) as error:
        raise DamagedError("its index is cut off") from error


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block: each name shares its first bytes with the one before."""
    stored = content[offset : offset + size + _TRAILER]
    if len(stored) != size + _TRAILER or struct.unpack("<I", stored[-4:])[0] != _masked(stored[:-4]):
        raise DamagedError("its index does not match its checksums")
    if stored[size]:
        raise DamagedError("its index is compressed, which TensorFlow never does")
    (restarts,) = struct.unpack_from("<I", stored, size - 4)
    position, end, name = 0, size - 4 - 4 * restarts, b""
    while position < end:
        shared, position = _varint(stored, position)
        own, position = _varint(stored, position)
        length, position = _varint(stored, position)
        name = name[:shared] + stored[position : position + own]
        position += own
        yield name, stored[position : position + length]
        position += length


def _handle(content: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position after them."""
    offset, position = _varint(content, position)
    size, position = _varint(content, position)
    return (offset, size), position


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """An integer stored as seven bits per byte, and the position after it."""
    value = shift = 0
    while True:
        byte = content[position]
        value, shift, position = value | (byte & 0x7F) << shift, shift + 7, position + 1
        if byte < 0x80:
            return value, position


Fields = dict[int, list["int | bytes"]]


def _fields(message: bytes) -> Fields:
    """The fields of a protocol buffer by number: integers, and nested messages as bytes."""
    found: Fields = {}
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        value: int | bytes
        if key & 7 == 0:
            value, position = _varint(message, position)
        elif key & 7 == 2:
            length, position = _varint(message, position)
            value, position = message[position : position + length], position + length
        elif key & 7 in (1, 5):
            length = 8 if key & 7 == 1 else 4
            value, position = int.from_bytes(message[position : position + length], "little"), position + length
        else:
            raise DamagedError("its index holds an unknown kind of field")
        found.setdefault(key >> 3, []).append(value)
    return found


def _integer(fields: Fields, number: int, default: int = 0) -> int:
    """The last value of an integer field."""
    value = fields.get(number, [default])[-1]
    return value if isinstance(value, int) else default


def _location(message: bytes) -> Location:
    """A `BundleEntryProto`."""
    fields = _fields(message)
    shape = [_fields(value) for value in fields.get(2, []) if isinstance(value, bytes)]
    sizes = [_fields(dim) for part in shape for dim in part.get(2, []) if isinstance(dim, bytes)]
    return Location(
        dtype=_integer(fields, 1),
        shape=tuple(_integer(size, 1) for size in sizes),
        shard=_integer(fields, 3),
        offset=_integer(fields, 4),
        size=_integer(fields, 5),
        checksum=_integer(fields, 6),
        sliced=7 in fields,
    )

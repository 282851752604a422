"""Reading back what an offline run of Weights & Biases wrote: a LevelDB log of protocol buffers."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768
HEADER = 7


def records(file: Path) -> Iterator[Any]:
    """The records of a `run-ID.wandb` file, in the order in which they were written."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts = file.read_bytes(), HEADER, b""
    assert data[:4] == b":W&B"
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # too little for a record's head: zeros up to the next block
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        parts += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]  # made when the module is imported
            record.ParseFromString(parts)
            yield record
            parts = b""
        elif kind == 0:
            return


def read_run(file: Path) -> dict[str, Any]:
    """`id`, `group`, `name`, `config`, `history` (rows) and `artifacts` (name, aliases) of an offline run."""
    run: dict[str, Any] = {"config": {}, "history": [], "artifacts": []}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run |= {"id": record.run.run_id, "group": record.run.run_group, "name": record.run.display_name}
        if kind in ("run", "config"):
            updates = record.run.config.update if kind == "run" else record.config.update
            run["config"] |= {item.key: json.loads(item.value_json) for item in updates if item.key}
        elif kind == "history":
            items = record.history.item
            run["history"].append({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items})
        elif kind == "artifact" or (kind == "request" and record.request.HasField("log_artifact")):
            artifact = record.artifact if kind == "artifact" else record.request.log_artifact.artifact
            run["artifacts"].append((artifact.name, list(artifact.aliases)))
    return run

"""Partial downloads: what must stay the same so that another attempt can continue, and the checksums that the host
states for the whole file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import requests
from requests.structures import CaseInsensitiveDict

CHUNK = 1 << 16


@dataclass(frozen=True)
class PartState:
    """What must be unchanged so that an attempt can continue an earlier one: the file's version and length."""

    version: str | None
    total: int | None

    @classmethod
    def of(cls, response: requests.Response, have: int) -> PartState:
        """What an answer states; `have` bytes of the file are here already, and the answer is the rest."""
        tag = response.headers.get("ETag", "")
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        return cls(None if tag.startswith("W/") or not tag else tag, total)

    @classmethod
    def read(cls, part: Path) -> PartState | None:
        """The state saved beside `part`; None if there is none that can be read."""
        try:
            content = json.loads(side(part).read_text())
            return cls(content["version"], content["total"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, part: Path) -> None:
        """Save the state beside `part`."""
        side(part).write_text(json.dumps({"version": self.version, "total": self.total}))

    def headers(self, have: int) -> dict[str, str]:
        """Headers that ask for the rest, provided that the file is still the same."""
        if self.version is None and self.total is None:
            return {}
        condition = {"If-Range": self.version} if self.version else {}
        return {"Range": f"bytes={have}-", **condition}

    def continues(self, response: requests.Response, have: int) -> bool:
        """Whether an answer is the rest of the same file, from byte `have` on."""
        found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not found or int(found.group(1)) != have:
            return False
        return self.total is None or found.group(2) in ("*", str(self.total))


def side(part: Path) -> Path:
    """Where the state of `part` is saved."""
    return part.with_name(part.name + ".json")


def forget(part: Path) -> None:
    """Delete a partial download and its state."""
    part.unlink(missing_ok=True)
    side(part).unlink(missing_ok=True)


def stated_digests(response: requests.Response) -> dict[str, str]:
    """The hashes of the file that its host states, by their kind: Google's `x-goog-hash`, Hugging Face's
    `x-linked-etag`."""
    stated: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for step in (*response.history, response):
        stated.update(step.headers)
    expected: dict[str, str] = {}
    if found := re.search(r"md5=([\w+/]+={0,2})", stated.get("x-goog-hash", "")):
        expected["md5"] = base64.b64decode(found.group(1)).hex()
    if found := re.fullmatch(r'"?([0-9a-f]{64})"?', stated.get("x-linked-etag", "")):
        expected["sha256"] = found.group(1)
    return expected


def digest(path: Path, kind: str) -> str:
    """A file's hash of a kind that hashlib knows, in hexadecimal."""
    found = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()

"""Names of files in the prepared folder: safe everywhere, and unique over all images whatever their suffix."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from posixpath import basename, splitext

LONGEST = 120
RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)$", re.IGNORECASE)


def unique_stems(keys: Iterable[str]) -> dict[str, str]:
    """A stem for every key, e.g. `a/1.jpg`: `1`; `a_1` if another has that, then `a_1_jpg`, then a digest.

    Stems differ even if case is ignored, and without suffixes: each image has one PNG of its stem.
    """
    keys = sorted(set(keys))
    stems = {key: _safe(splitext(basename(key))[0]) for key in keys}
    for longer in (_with_folder, _with_suffix, _with_digest):
        counts = Counter(stem.casefold() for stem in stems.values())
        stems = {key: longer(key) if counts[stem.casefold()] > 1 else stem for key, stem in stems.items()}
    assert len({stem.casefold() for stem in stems.values()}) == len(keys)
    return stems


def _with_folder(key: str) -> str:
    return _safe(splitext(key)[0].replace("/", "_"))


def _with_suffix(key: str) -> str:
    return _safe(key.replace("/", "_").replace(".", "_"))


def _with_digest(key: str) -> str:
    return f"{_with_folder(key)}-{hashlib.blake2b(key.encode(), digest_size=4).hexdigest()}"


def _safe(name: str) -> str:
    """Letters, digits, `_`, `-` and inner dots of any script; nothing that a file system or a shell treats
    specially."""
    name = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name)).strip("._")
    name = name.encode()[:LONGEST].decode(errors="ignore")
    return f"_{name}" if not name or name.startswith("-") or RESERVED.match(name) else name

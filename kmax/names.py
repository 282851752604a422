"""File names from outside names: safe on every file system, unique over the whole set, stable.

Safe names do not change. Names that differ only in case or in the composition of accents count as equal, since they are
equal on some file systems.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath, PurePosixPath

LONGEST_PART, LONGEST = 150, 1000  # bytes of a part, leaving room for suffixes, and of a whole
_ODD = re.compile(r'[\x00-\x1f\x7f-\x9f\\<>:"|?*\u2028\u2029\ud800-\udfff]')
_SUFFIXES = (".jpg", ".png", ".mp4", ".json", ".csv")  # of the files that are written under a name
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # of Windows


def safe_name(name: str) -> str:
    """A relative path with `/` that every file system takes; a name that must change gets a digest of itself."""
    parts = [_safe_part(part) for part in name.split("/")]
    safe = "/".join(parts)
    if len(safe.encode()) > LONGEST:
        safe = parts[-1]
    return safe if safe == name else f"{safe}-{digest(name)}"


def flat_name(name: str) -> str:
    """A name without folders, by the same rule."""
    flat = safe_name(name.replace("/", "_"))
    return flat if "/" not in name else f"{flat}-{digest(name)}"


def natural_order(path: PurePath) -> list[list[tuple[bool, int, str]]]:
    """A key by which paths sort as people number them: `frame2` before `frame10`."""
    pieces = ([piece for piece in re.split(r"([0-9]+)", part) if piece] for part in path.parts)
    return [[(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in piece] for piece in pieces]


def digest(name: str) -> str:
    """Eight hexadecimal digits that tell names apart."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def _safe_part(part: str) -> str:
    safe = _ODD.sub("_", part)
    if not safe or safe.startswith("."):  # hidden, the folder itself or the one above
        safe = f"_{safe[1:]}"
    if safe.endswith((".", " ")):  # Windows drops these
        safe = f"{safe[:-1]}_"
    if _RESERVED.fullmatch(safe):
        safe = f"_{safe}"
    return safe.encode()[:LONGEST_PART].decode("utf-8", "ignore") if len(safe.encode()) > LONGEST_PART else safe


def without_suffix(name: str) -> str:
    """The path without the suffix of its last part."""
    return PurePosixPath(name).with_suffix("").as_posix() if PurePosixPath(name).name else name


def bare(name: str) -> str:
    """The last part alone, without its suffix."""
    return PurePosixPath(name).stem or name


def unique_names(
    names: Sequence[str],
    forms: Sequence[Callable[[str], str]] = (without_suffix, str),
    folders: Sequence[bool] = (),
    known: Mapping[str, str] | None = None,
) -> list[str]:
    """A safe, unique name for each of `names`: the first of its `forms` that nothing else of the set has.

    Args:
        names: paths with `/`.
        forms: from the shortest to the longest; colliding names take the next form, the last of which has a digest.
        folders: which of them become folders with files in them, into which no other name may fall.
        known: names that an earlier run has given; they are kept.
    """
    folders, known = folders or [False] * len(names), known or {}
    twins = Counter[str]()
    last = []
    for name in names:
        last.append(f"{safe_name(name)}-{digest(f'{name}#{twins[name]}')}")
        twins[name] += 1
    candidates = [[*(safe_name(form(name)) for form in forms), end] for name, end in zip(names, last, strict=True)]
    for options, name in zip(candidates, names, strict=True):
        if name in known:
            options.insert(0, known[name])
    level = [0] * len(names)
    while True:
        chosen = [options[n] for options, n in zip(candidates, level, strict=True)]
        colliding = _collisions(chosen, folders)
        # Names of an earlier run stay: first only new names change; if none of them can, all do.
        movable = [n for n in colliding if level[n] + 1 < len(candidates[n])]
        newcomers = [n for n in movable if names[n] not in known or level[n]]
        if not movable:
            return chosen
        shortest = min(level[n] for n in newcomers or movable)
        for n in newcomers or movable:
            level[n] += level[n] == shortest


def _collisions(names: Sequence[str], folders: Sequence[bool]) -> set[int]:
    """Positions of names that some file system would confuse with another."""
    folded = [unicodedata.normalize("NFC", name).casefold() for name in names]
    users = defaultdict(set)
    for n, name in enumerate(folded):
        users[name].add(n)
    found = {n for group in users.values() if len(group) > 1 for n in group}
    above = {parent.as_posix() for name in folded for parent in PurePosixPath(name).parents}
    above |= {name for name, folder in zip(folded, folders, strict=True) if folder}
    for n, (name, folder) in enumerate(zip(folded, folders, strict=True)):
        if not above.isdisjoint(f"{name}{suffix}" for suffix in _SUFFIXES):  # a file where a folder is
            found.add(n)
        if folder and any(other.startswith(f"{name}/") for other in users):
            found.add(n)
    return found

"""Checks of JSON files from outside, where they enter the program.

An error is one sentence that names the file, the list and its entry, what was found and what is expected. Valid columns
are checked as a whole: a file of a million segments takes a second.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ABSENT: object = object()
_LONGEST = 60  # characters of a value in a message


def read_json(path: Path) -> Any:
    """The content of a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no valid JSON, an object that has one key twice, or no permission to read it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: check the dataset's folder and the file's name.")
    try:
        content = path.read_bytes()
        with without_collector():
            return json.loads(content, object_pairs_hook=_object)
    except _TwiceError as error:
        raise ValueError(f"{path}: an object has the key {error} twice: only one can be meant.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): get the file again, or save it as UTF-8.") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error


class _TwiceError(ValueError):
    """A key that an object has twice."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(shown(next(key for key in keys if keys.count(key) > 1)))
    return found


@contextmanager
def without_collector() -> Iterator[None]:
    """Pause the garbage collector: while millions of objects are created, it would double the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def shown(value: object) -> str:
    """A value for a message: as JSON, on one line, shortened."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


@dataclass(frozen=True)
class Kind:
    """What a value must be: `words` for messages; `one` checks a value, `all` many at once."""

    words: str
    one: Callable[[object], bool]
    all: Callable[[Sequence[Any]], bool]


def _ends(values: Sequence[int]) -> tuple[int, ...]:
    return (min(values), max(values)) if values else ()


def integer(low: int, high: int) -> Kind:
    """An integer in low … high; neither text nor a truth value."""
    return Kind(
        f"an integer in {low} … {high}",
        lambda value: type(value) is int and low <= value <= high,
        lambda values: set(map(type, values)) <= {int} and all(low <= v <= high for v in _ends(values)),
    )


def _is_text(value: object) -> bool:
    """A name that a file can be called: one line, not empty, without the character 0 and halves of characters."""
    if type(value) is not str or not value or "\0" in value or value.splitlines() != [value]:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _are_texts(values: Sequence[Any]) -> bool:
    return set(map(type, values)) <= {str} and all(values) and _is_text("".join(values) or "x")


_INT64 = integer(-(1 << 63), (1 << 63) - 1)
TEXT = Kind("a text of one line that is not empty", _is_text, _are_texts)
LIST = Kind("a list", lambda value: type(value) is list, lambda values: set(map(type, values)) <= {list})
TRUTH = Kind(
    "0, 1, true or false",
    lambda value: type(value) in (int, bool) and value in (0, 1),
    lambda values: set(map(type, values)) <= {int, bool} and set(values) <= {0, 1},
)
ID = Kind(
    "an integer or a text",
    lambda value: _INT64.one(value) or _is_text(value),
    lambda values: (
        set(map(type, values)) <= {int, str}
        and _INT64.all([value for value in values if type(value) is int])
        and _are_texts([value for value in values if type(value) is str])
    ),
)
"""Kind of the ids of images."""


@dataclass(frozen=True)
class Table:
    """A list of objects in a file; `where(n)` is what messages call entry n."""

    path: Path | str
    entries: Sequence[Any]
    where: Callable[[int], str]

    def column(self, key: str, kind: Kind, default: object = _ABSENT) -> list[Any]:
        """The value of `key` in every entry, checked.

        Raises:
            ValueError: an entry that is no object, lacks the key (if it has no default), or has something else there.
        """
        try:
            if default is _ABSENT:
                values = [entry[key] for entry in self.entries]
            else:
                values = [entry.get(key, default) for entry in self.entries]
        except (KeyError, TypeError, AttributeError, IndexError):
            raise self._complaint(key, kind, default) from None
        if not kind.all(values):
            raise self._complaint(key, kind, default)
        return values

    def _complaint(self, key: str, kind: Kind, default: object) -> ValueError:
        """A sentence about the first invalid entry."""
        for number, entry in enumerate(self.entries):
            where = f"{self.path}: {self.where(number)}"
            if not isinstance(entry, dict):
                return ValueError(f"{where} is {shown(entry)}, but must be an object with {key!r}.")
            if key not in entry and default is _ABSENT:
                return ValueError(f"{where} has no {key!r}; it has {', '.join(map(shown, entry)) or 'nothing'}.")
            value = entry.get(key, default)
            if not kind.one(value):
                return ValueError(f"{where}.{key} is {shown(value)}, but must be {kind.words}.")
        raise AssertionError(f"{kind.words}: `one` and `all` disagree")


def color(value: object) -> tuple[int, int, int] | None:
    """An RGB color from three integers in 0 … 255 or from hexadecimal text (#rgb, #rrggbb, #rrggbbaa); None for
    anything else, such as fractions, whose range is not known."""
    if isinstance(value, str):
        digits = value.strip().removeprefix("#")
        if not re.fullmatch(r"[0-9a-fA-F]{3}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8}", digits):
            return None
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return value[0], value[1], value[2]
    return None


COLOR = Kind(
    "three integers in 0 … 255, or a text like #ff8800",
    lambda value: color(value) is not None,
    lambda values: None not in map(color, values),
)

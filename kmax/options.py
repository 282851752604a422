"""Options: frozen dataclasses that carry the meaning and the range of each field.

A package declares its options with `option`. The configuration's schema, `--help` and the tables of the docs are made
from these declarations, and a value out of its range is refused when the dataclass is built.
"""

from __future__ import annotations

import math
import operator
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

REQUIRED = "???"
"""Default of an option without one; OmegaConf's mark of a missing value."""
Plain = dict[str, Any]
"""Options as plain containers: what JSON and YAML hold."""
T = TypeVar("T")


class OptionError(ValueError):
    """An option that is unknown or out of its range; the message begins with its name."""


class Options:
    """Base of all option classes: checks ranges when an instance is built."""

    def __post_init__(self) -> None:
        check_ranges(self)


def option(
    default: object,
    meaning: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A field of an options dataclass.

    Args:
        default: `REQUIRED` if there is none.
        meaning: a line for `--help` and the docs.
        at_least, above, at_most, below: the range of a number, or of each number of a sequence.
        choices: the values of a string, or of each string of a sequence.
    """
    metadata = {
        "meaning": meaning,
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "below": below,
        "choices": tuple(choices),
    }
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(kind: type, meaning: str) -> Any:
    """A field that holds options of their own."""
    return field(default_factory=kind, metadata={"meaning": meaning})


def check_ranges(options: object) -> None:
    """Check each field of an options dataclass against its declaration.

    Raises:
        OptionError: the first value that is out of its range.
    """
    assert is_dataclass(options), "options are declared by fields"
    for declared in fields(options):
        value = getattr(options, declared.name)
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            if one is not None and one != REQUIRED and not is_dataclass(one):
                _check_value(declared, value, one)


_BOUNDS: dict[str, tuple[Callable[[float, float], bool], str, str]] = {
    "at_least": (operator.ge, "at least", "≥"),
    "above": (operator.gt, "greater than", ">"),
    "at_most": (operator.le, "at most", "≤"),
    "below": (operator.lt, "less than", "<"),
}
"""Bounds of a number: the test, its words in a message, and its sign in a table."""


def _check_value(declared: Field[object], whole: object, value: object) -> None:
    limits = declared.metadata
    wanted = ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            wanted = "a finite number"
        else:
            broken = (
                f"{words} {_number(limits[name])}"
                for name, (holds, words, _) in _BOUNDS.items()
                if limits.get(name) is not None and not holds(value, limits[name])
            )
            wanted = next(broken, "")
    elif isinstance(value, str) and limits.get("choices") and value not in limits["choices"]:
        wanted = f"{'some' if whole is not value else 'one'} of {', '.join(limits['choices'])}"
    if wanted:
        raise OptionError(f"{declared.name}={_shown(whole)} must be {wanted}.")


def _number(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _shown(value: object) -> str:
    """A value as one would type it on the command line."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_shown, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def build_options(kind: type[T], values: Mapping[str, object], prefix: str = "") -> T:
    """An options dataclass from plain containers, such as JSON or YAML hold; types and ranges are checked.

    Args:
        prefix: the section of these options in messages, e.g. "dataset.".

    Raises:
        OptionError: an unknown name, a value of another type, or one out of its range.
    """
    hints = typing.get_type_hints(kind)
    known = [f.name for f in fields(typing.cast(Any, kind))]
    unknown = [str(name) for name in values if name not in known]
    if unknown:
        raise OptionError(f"There is no option {prefix}{unknown[0]}: known are {', '.join(known)}.")
    given = {name: _converted(hints[name], value, f"{prefix}{name}") for name, value in values.items()}
    try:
        return kind(**given)
    except OptionError as error:
        nested = str(error).startswith(prefix) and prefix
        raise OptionError(str(error) if nested else f"{prefix}{error}") from None


def _converted(hint: object, value: object, name: str) -> object:
    """`value` as the type that `hint` names."""
    if hint is Any or value == REQUIRED:
        return value
    if is_dataclass(hint):
        if isinstance(value, Mapping):
            return build_options(typing.cast(type, hint), value, f"{name}.")
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _converted_to_one_of(arguments, value, name)
    if origin in (tuple, list) and isinstance(value, (list, tuple)):
        return _converted_sequence(origin, arguments, value, name)
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is bool and isinstance(value, str) and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    exact = hint in (int, float) and isinstance(value, bool)
    if isinstance(hint, type) and isinstance(value, hint) and not exact:
        return value
    raise OptionError(f"{name}={_shown(value)} must be {type_in_words(hint)}.")


def _converted_to_one_of(kinds: Sequence[object], value: object, name: str) -> object:
    if value is None and type(None) in kinds:
        return None
    # Exact types first: `int | float` must not make a float of an integer.
    candidates = sorted((k for k in kinds if k is not type(None)), key=lambda k: type(value) is not k)
    for position, kind in enumerate(candidates):
        try:
            return _converted(kind, value, name)
        except OptionError:
            if position == len(candidates) - 1:
                if len(candidates) == 1:
                    raise
                words = " or ".join(type_in_words(kind) for kind in candidates)
                raise OptionError(f"{name}={_shown(value)} must be {words}.") from None
    raise AssertionError("a union has members")


def _converted_sequence(origin: type, arguments: tuple[object, ...], value: Sequence[object], name: str) -> object:
    any_length = origin is list or arguments[-1] is Ellipsis
    kinds = [arguments[0]] * len(value) if any_length else list(arguments)
    if len(kinds) != len(value):
        raise OptionError(f"{name}={_shown(value)} must be {len(kinds)} values, e.g. [{','.join(['…'] * len(kinds))}].")
    return origin(_converted(kind, item, name) for kind, item in zip(kinds, value, strict=True))


_TRUTH = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}  # as OmegaConf reads them
_WORDS: dict[object, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
}


def type_in_words(hint: object) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_in_words(kind) for kind in arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"{len(arguments)} values in brackets"
    if origin in (tuple, list):
        return "a list in brackets"
    if origin is dict or hint is dict:
        return "a section"
    return _WORDS.get(hint, "a value")


@dataclass(frozen=True)
class Described:
    """One option for `--help` and the docs, in words."""

    name: str
    default: str
    kind: str
    meaning: str
    choices: str


def describe(kind: type, prefix: str = "") -> Iterator[Described]:
    """The options of a dataclass in their order, those of nested dataclasses with their section's name in front."""
    hints = typing.get_type_hints(kind)
    for declared in fields(typing.cast(Any, kind)):
        hint, name, limits = hints[declared.name], f"{prefix}{declared.name}", declared.metadata
        if is_dataclass(hint):
            yield from describe(typing.cast(type, hint), f"{name}.")
            continue
        value = declared.default if declared.default_factory is MISSING else declared.default_factory()
        default = "" if value is MISSING or value == REQUIRED else _shown(value)
        yield Described(name, default, type_in_words(hint), limits.get("meaning", ""), _range_in_words(limits))


def _range_in_words(limits: Mapping[str, Any]) -> str:
    if limits.get("choices"):
        return ", ".join(limits["choices"])
    bounds = [(sign, limits.get(name)) for name, (_, _, sign) in _BOUNDS.items()]
    return ", ".join(f"{sign} {_number(limit)}" for sign, limit in bounds if limit is not None)


def to_plain(options: object) -> Any:
    """Options, and containers of them, as dicts, lists and numbers: the inverse of `build_options`."""
    if is_dataclass(options):
        return {declared.name: to_plain(getattr(options, declared.name)) for declared in fields(options)}
    if isinstance(options, Mapping):
        return {name: to_plain(value) for name, value in options.items()}
    return [to_plain(value) for value in options] if isinstance(options, (list, tuple)) else options

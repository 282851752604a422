"""Messages about arguments that Hydra's grammar refuses, and how to write them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from kmax.console import override


def grammar_mistake(arguments: Sequence[str]) -> str | None:
    """A sentence about the first argument that cannot be read as `key=value`, and how to write it; None if all can.

    In Hydra, `= , : ( ) [ ] { }`, quotes and spaces in values have a meaning, and letters of other alphabets need
    quotes.

    Args:
        arguments: of the command line, without the program; those that begin with a dash are left alone.
    """
    parser, previous = OverridesParser.create(), ""
    for argument in arguments:
        follows_flag = previous.startswith("-")  # the value of --config-dir, --cfg, …
        previous = argument
        if argument.startswith("-") or (follows_flag and "=" not in argument):
            continue
        try:
            parser.parse_override(argument)
        except HydraException:
            return _sentence(parser, argument)
    return None


def _sentence(parser: OverridesParser, argument: str) -> str:
    key, sign, value = argument.partition("=")
    if not sign:
        return f"{argument} is no option: write key=value, e.g. {override('input', argument)} (see --help)."
    written = override(key, value)
    if _value(parser, written) != value:
        return f"{argument} is no option: {key!r} is not the name of one (see --help)."
    return (
        f"{argument} cannot be read: in a value, = , : ( ) [ ] {{ }}, quotes, spaces and letters of other alphabets "
        f"need quotes, for the shell and within it. Write {shlex.quote(written)}"
    )


def _value(parser: OverridesParser, argument: str) -> object:
    """The value of an argument as Hydra reads it, None if it cannot."""
    try:
        return parser.parse_override(argument).value()
    except HydraException:
        return None

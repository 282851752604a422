"""From the classes of a source and the command line to the classes of the result."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from kmax.categories import Categories, Category, default_color
from kmax.data.convert.options import Options
from kmax.data.convert.paint import Rules
from kmax.data.convert.source import VOID_LABEL, ClassInfo, Source

BACKGROUND = "background"
BACKGROUND_COLOR = (70, 70, 70)
_BACKGROUND_NAMES = ("background", "bg")
_VOID_NAMES = ("void", "ignore", "ignored", "unlabeled", "unlabelled", "unknown")


def rules_of(source: Source, options: Options) -> Rules:
    """Categories numbered from 1, in the order of the source or of `--classes`, the background last.

    Raises:
        ValueError: an option names a class that the source does not have, or no class is left.
    """
    infos = {info.name: info for info in source.classes if info.name != VOID_LABEL}
    known = list(infos)
    ignored = {*_resolve("--ignore", options.ignore, known), *(name for name in known if _plain(name) in _VOID_NAMES)}
    kept = _resolve("--classes", options.classes, known) or [name for name in known if name not in ignored]
    if not kept:
        raise ValueError(
            f"The annotations of {options.source} ({source.format}) name no class: nothing can be learned."
        )
    stuff, things = (set(_resolve(f"--{o}", getattr(options, o), known)) for o in ("stuff", "things"))
    classes = [_category(n, infos[name], name in stuff, name in things) for n, name in enumerate(kept, 1)]
    rest = None
    if options.unlabeled == BACKGROUND or (not options.unlabeled and source.owns_background):
        rest = next((c.id for c in classes if is_background(c.name)), len(classes) + 1)
        if rest > len(classes):
            classes.append(Category(rest, BACKGROUND, False, BACKGROUND_COLOR))
    categories = Categories("own", tuple(classes))
    id_of = {name: n for n, name in enumerate(kept, 1)}
    split = bool(options.things) and source.format == "semantic maps"
    return Rules(categories, id_of, frozenset(ignored), rest, source.is_ordered, split, options.min_area)


def _category(number: int, info: ClassInfo, is_stuff: bool, is_thing: bool) -> Category:
    """A class is a thing unless it is asked or known to be stuff."""
    thing = not is_stuff and (is_thing or (info.is_thing is not False and not is_background(info.name)))
    return Category(number, info.name, thing, info.color or default_color(number - 1))


def is_background(name: str) -> bool:
    """Whether a class is the one that pixels without annotation belong to."""
    return _plain(name) in _BACKGROUND_NAMES


def _plain(name: str) -> str:
    return name.strip("_- ").lower()


def _resolve(option: str, names: Iterable[str], known: list[str]) -> list[str]:
    """Names as the source writes them; upper and lower case need not agree."""
    by_case = {name.casefold(): name for name in known}
    found = []
    for name in names:
        if name not in known and name.casefold() not in by_case:
            close = difflib.get_close_matches(name, known, 3) or known[:8]
            raise ValueError(
                f"{option} names {name}, but the annotations have no such class: there is {', '.join(close)}."
            )
        found.append(name if name in known else by_case[name.casefold()])
    return list(dict.fromkeys(found))

"""Match the categories of an annotation file with our classes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from kmax.categories.categories import Categories


class Listed(NamedTuple):
    """A category as an annotation file lists it; `is_thing` is None where the file does not say."""

    id: int
    name: str
    is_thing: bool | None


def match_categories(
    listed: Sequence[Listed], categories: Categories, used: Collection[int], path: Path
) -> dict[int, int]:
    """Label by id for the categories that a file uses.

    Files number their classes as they like, so names decide: a split whose numbers differ from those of
    `categories` is read with its own numbers. Only `categories` that are a list of classes (`by_id`) may
    rename those of annotation files; then ids decide, unless a name stands at another id.

    Args:
        listed: the categories that the file lists; if none, ids decide.
        used: the ids that its segments have.

    Raises:
        ValueError: a class that `categories` lack, or that is a thing here and stuff there.
    """
    names = {entry.id: entry.name for entry in listed}
    own = dict(zip(categories.ids, categories.names, strict=True))
    moved = [e for e in listed if e.name in categories.names and own.get(e.id) != e.name]
    if not listed or (categories.by_id and not moved) or all(own.get(id_) == names.get(id_) for id_ in used):
        found = {id_: categories.label_of[id_] for id_ in used if id_ in categories.label_of}
    else:
        found = {id_: categories.names.index(names[id_]) for id_ in used if names.get(id_) in categories.names}
    unknown = sorted(set(used) - found.keys())
    if unknown and listed and unknown[0] not in names:
        raise ValueError(f"{path}: its segments have category {unknown[0]}, which its own categories lack: add it.")
    if unknown and listed:
        raise ValueError(
            f"{path}: its class {names[unknown[0]]!r} (category {unknown[0]}) is not among the "
            f"{categories.num_classes} of this dataset: name the classes of all splits alike, or set "
            "the list of classes to a JSON file that has it."
        )
    for entry in listed:
        thing = categories.is_thing[found[entry.id]] if entry.id in found else None
        if not categories.by_id and None not in (thing, entry.is_thing) and thing != entry.is_thing:
            here, there = ("a thing" if kind else "stuff" for kind in (entry.is_thing, thing))
            raise ValueError(
                f"{path}: its class {entry.name!r} is {here}, but {there} among the classes of this dataset: make "
                "isthing agree in all splits."
            )
    return found

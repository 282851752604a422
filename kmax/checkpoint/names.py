"""Names of checkpoint entries: tables that pair those of two formats, and what does not fit a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

_NUMBER = re.compile(r"#(?:\+(\d))?")
_Rule = tuple[re.Pattern[str], list[int], str, list[int]]


class NameTable:
    """A bijection between names, made of pairs (theirs, ours).

    `#` stands for a number that both names have, `#+2` for that number plus two. The first pair that matches counts.

    Args:
        whole: the pairs are whole names; otherwise prefixes, and the rest of a name is the same on both sides.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], whole: bool = False) -> None:
        pairs = list(pairs)
        self._to_ours = [_rule(theirs, ours, whole) for theirs, ours in pairs]
        self._to_theirs = [_rule(ours, theirs, whole) for theirs, ours in pairs]

    def ours(self, theirs: str) -> str | None:
        """Our name of their entry; None if the table has none."""
        return _translate(theirs, self._to_ours)[0]

    def theirs(self, ours: str) -> str | None:
        """Their name of our entry; None if the table has none."""
        return _translate(ours, self._to_theirs)[0]

    def position(self, theirs: str) -> int:
        """Position of the pair that matches their entry; −1 if none does."""
        return _translate(theirs, self._to_ours)[1]


def _shifts(name: str) -> list[int]:
    """The offset of each number in a name."""
    return [int(match.group(1) or 0) for match in _NUMBER.finditer(name)]


def _rule(source: str, target: str, whole: bool) -> _Rule:
    texts = _NUMBER.split(source)[::2]  # the other items are the groups
    pattern = r"(\d+)".join(re.escape(text) for text in texts) + ("$" if whole else "")
    return re.compile(pattern), _shifts(source), _NUMBER.sub("{}", target), _shifts(target)


def _translate(name: str, rules: list[_Rule]) -> tuple[str | None, int]:
    """The translated name, and the position of the rule that matched."""
    for position, (pattern, taken, template, added) in enumerate(rules):
        match = pattern.match(name)
        if match:
            numbers = (int(n) - t + a for n, t, a in zip(match.groups(), taken, added, strict=True))
            return template.format(*numbers) + name[match.end() :], position
    return None, -1


def describe_mismatch(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """How the entries `given` differ from the entries `own` of a model, in words; empty if all fit."""
    problems = {
        "missing": own.keys() - given.keys(),
        "not of this model": given.keys() - own.keys(),
        "of another shape": {name for name in own.keys() & given.keys() if own[name].shape != given[name].shape},
    }
    return ", ".join(f"{len(names)} {kind} (first: {min(names)})" for kind, names in problems.items() if names)

"""Fonts for names in any script: Pillow's own, matplotlib's, the system's; and which names can be drawn."""

from __future__ import annotations

import importlib.util
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageFont, features

from kmax.categories import Categories
from kmax.console import plain

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
SMALLEST = 8  # pixels that letters have at least
_NO_CHARACTER = "\U0010fffe"  # drawn as a box in every font
_RIGHT_TO_LEFT = ("R", "AL", "AN")
_PROBE = 16  # pixels
_BUILT_IN = ""


def font(size: float, text: str = "") -> Font:
    """A font of at least `SMALLEST` pixels that has every character of `text`; Pillow's built-in one where none has."""
    path, pixels = _font_with(frozenset(text)) or _BUILT_IN, max(SMALLEST, round(size))
    return ImageFont.truetype(path, pixels) if path else ImageFont.load_default(pixels)


def legible(text: str) -> bool:
    """Whether some font has every character of `text`, and Pillow sets its script in the right order."""
    return text.isprintable() and _is_set_rightly(text) and _font_with(frozenset(text)) is not None


def legible_names(categories: Categories) -> list[str]:
    """The name of each class as it is drawn: "id 7" where no font has its characters, and with its id where
    two have the same name."""
    names = [c.name if legible(c.name) else f"id {c.id}" for c in categories.classes]
    count = Counter(names)
    return [
        name if count[name] == 1 else f"{plain(name)} ({c.id})"
        for name, c in zip(names, categories.classes, strict=True)
    ]


@lru_cache(maxsize=4096)
def _font_with(characters: frozenset[str]) -> str | None:
    """The first font with all these characters, "" for the built-in one; None if there is none."""
    wanted = {c for c in characters if not c.isspace()}
    return next((path for path in _fonts() if all(_has(path, c) for c in wanted)), None)


@lru_cache(maxsize=65536)
def _has(path: str, character: str) -> bool:
    face = _probe(path)
    if face is None:
        return False
    drawn, box = face.getmask(character), face.getmask(_NO_CHARACTER)
    return drawn.size != box.size or bytes(drawn) != bytes(box)


@cache
def _probe(path: str) -> Font | None:
    try:
        return ImageFont.truetype(path, _PROBE) if path else ImageFont.load_default(_PROBE)
    except OSError:  # a bitmap font, or no font at all
        return None


@lru_cache(maxsize=1)
def _fonts() -> tuple[str, ...]:
    return (_BUILT_IN, *_of_matplotlib(), *_of_the_system())


def _of_matplotlib() -> Iterator[str]:
    """DejaVu Sans: Latin, Greek, Cyrillic, Arabic, Hebrew and more. Looked up without importing matplotlib."""
    found = importlib.util.find_spec("matplotlib")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if path.is_file():
            yield str(path)


def _of_the_system() -> list[str]:
    home = os.path.expanduser("~")
    folders = {
        "win32": [os.path.join(os.environ.get("WINDIR", "C:\\Windows"), "Fonts")],
        "darwin": ["/System/Library/Fonts", "/Library/Fonts", f"{home}/Library/Fonts"],
    }.get(sys.platform, ["/usr/share/fonts", "/usr/local/share/fonts", f"{home}/.local/share/fonts", f"{home}/.fonts"])
    endings = (".ttf", ".otf", ".ttc")
    found = [
        os.path.join(parent, name)
        for folder in folders
        for parent, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(endings)
    ]
    return sorted(found, key=lambda path: ("regular" not in path.lower(), path))


def _is_set_rightly(text: str) -> bool:
    """Scripts from right to left, and those with marks above and below, need Pillow's complex layout."""
    needs = any(unicodedata.bidirectional(c) in _RIGHT_TO_LEFT or unicodedata.combining(c) for c in text)
    return not needs or features.check("raqm") is True

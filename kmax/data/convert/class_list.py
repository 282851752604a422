"""Lists of classes beside semantic maps: which value or color of a pixel means which class."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

FILES = (
    "labelmap.txt",
    "classes.txt",
    "labels.txt",
    "class_names.txt",
    "label_colors.txt",
    "classes.csv",
    "_classes.csv",
    "class_dict.csv",
    "classes.json",
    "config_v2.0.json",
)
Color = tuple[int, int, int]


@dataclass(frozen=True)
class ClassList:
    """Class names by the value of a pixel, or by its color, which is written as 65536·R + 256·G + B."""

    file: Path
    by_value: Mapping[int, str] = field(default_factory=dict)
    by_color: Mapping[int, str] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, Color | None]:
        """Colors by name, in the order of the file."""
        colors = {name: (code >> 16, code >> 8 & 255, code & 255) for code, name in self.by_color.items()}
        return {name: colors.get(name) for name in (*self.by_value.values(), *self.by_color.values())}


def read_class_list(path: Path) -> ClassList:
    """A class list in any of the forms that tools write.

    Text: a name per line, for the values 0, 1, … (after `__ignore__`, as Labelme writes it); `7 car` or `7: car`;
    `car 0 0 142`; CVAT's `car:0,0,142::`. CSV with a header (Roboflow's `Pixel Value, Class`; `name,r,g,b`).
    JSON: a list of names; a table from value to name, from name to value or color; Mapillary's configuration.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: nothing of the kind can be read from it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no list of classes {path}: give a file with --names.")
    text = path.read_text("utf-8-sig")
    try:
        rows = {".json": _from_json, ".csv": _from_csv}.get(path.suffix.lower(), _from_text)(text)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is no list of classes ({error}): write a name per line, or 'value name'.") from error
    if not rows:
        raise ValueError(f"{path} lists no class: write a name per line, or 'value name'.")
    by_value = {key: name for key, name in rows if isinstance(key, int)}
    by_color = {_code(key): name for key, name in rows if not isinstance(key, int)}
    return ClassList(path, by_value, by_color)


Row = tuple[int | Color, str]


def _from_text(text: str) -> list[Row]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    start = -1 if lines and lines[0] == "__ignore__" else 0
    return [_from_line(line, number) for number, line in enumerate(lines, start)]


def _from_line(line: str, number: int) -> Row:
    """One line of text; `number` is its position."""
    cvat = re.match(r"^([^:]+):(\d+),(\d+),(\d+):", line)
    if cvat:
        return (int(cvat[2]), int(cvat[3]), int(cvat[4])), cvat[1].strip()
    colored = re.match(r"^(.*\S)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(\d+)$", line)
    if colored:
        return (int(colored[2]), int(colored[3]), int(colored[4])), colored[1].strip()
    color_first = re.match(r"^(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(\D.*)$", line)
    if color_first:
        return (int(color_first[1]), int(color_first[2]), int(color_first[3])), color_first[4].strip()
    valued = re.match(r"^(\d+)\s*[:,\s]\s*(\D.*)$", line)
    if valued:
        return int(valued[1]), valued[2].strip()
    return number if number >= 0 else 255, line.split(":")[0].strip()


def _from_csv(text: str) -> list[Row]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
    header = [cell.lower() for cell in rows[0]]
    name = next(n for n, cell in enumerate(header) if cell in ("name", "class", "label", "class name"))
    if {"r", "g", "b"} <= set(header):
        red, green, blue = (header.index(letter) for letter in "rgb")
        return [((int(row[red]), int(row[green]), int(row[blue])), row[name]) for row in rows[1:]]
    value = next(n for n, cell in enumerate(header) if cell in ("pixel value", "value", "id", "index"))
    return [(int(row[value]), row[name]) for row in rows[1:]]


def _from_json(text: str) -> list[Row]:
    content = json.loads(text)
    if isinstance(content, dict) and isinstance(content.get("labels"), list):
        return [(tuple(entry["color"]), str(entry.get("readable") or entry["name"])) for entry in content["labels"]]
    if isinstance(content, list):
        return [(value, str(name)) for value, name in enumerate(content)]
    return [_from_entry(key, value) for key, value in content.items()]


def _from_entry(key: str, value: object) -> Row:
    if isinstance(value, list):
        red, green, blue = (int(number) for number in value)
        return (red, green, blue), key
    return (value, key) if isinstance(value, int) else (int(key), str(value))


def _code(color: Color) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue


def read_values(path: Path, by_color: bool) -> np.ndarray:
    """A label PNG (H, W) int32: values, or colors as 65536·R + 256·G + B.

    Raises:
        ValueError: it is damaged, or its pixels are colors where values are wanted.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if by_color:
                rgb = np.asarray(image.convert("RGB")).astype(np.int32)
                return rgb @ np.array([65536, 256, 1], np.int32)
            values = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"the label map {path} is damaged ({error})") from error
    if values.ndim == 3:
        if (values[..., :3] != values[..., :1]).any():
            raise ValueError(f"the label map {path} is colored, but the list of classes gives no colors")
        values = values[..., 0]
    return values.astype(np.int32)


def palette(path: Path) -> dict[int, Color]:
    """The colors of a palette PNG by value; nothing for other PNG."""
    with Image.open(path) as image:
        flat = image.getpalette() if image.mode == "P" else None
    if flat is None:
        return {}
    return {n: (flat[3 * n], flat[3 * n + 1], flat[3 * n + 2]) for n in range(len(flat) // 3)}

"""A film of training: what one image's panels show from validation to validation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from kmax.files import replacing
from kmax.videos import write_video
from kmax.visualization.fonts import font
from kmax.visualization.layout import sheet
from kmax.visualization.palette import INK, MUTED, PAPER, cluster_color
from kmax.visualization.panels import LONG_SIDE, PANEL

BOXES = "kmax panel boxes"
"""The text of a panel's PNG that says where its pictures are: JSON of caption to left, top, right, bottom."""
SUFFIXES = (".gif", ".webp", ".mp4")
_NAME = re.compile(r"step(\d+)-(.+)\.png")
_BAR = 40  # pixels under the pictures
_HOLD = 4  # the last frame is shown as long as so many others


@dataclass(frozen=True)
class PanelFile:
    """A panel of an image on disk, written after `step` optimizer steps."""

    step: int
    path: Path


def find_panels(folder: Path) -> dict[str, list[PanelFile]]:
    """The panels of each image by ascending step.

    Args:
        folder: of panels, or of a run with a folder `panels`.

    Raises:
        FileNotFoundError: there are none.
    """
    folder = folder / "panels" if (folder / "panels").is_dir() else folder
    found: dict[str, list[PanelFile]] = {}
    for path in sorted(folder.glob("step*.png")):
        if named := _NAME.fullmatch(path.name):
            found.setdefault(named[2], []).append(PanelFile(int(named[1]), path))
    if not found:
        raise FileNotFoundError(f"There are no panels in {folder}: give the folder of a run that has validated.")
    return {name: sorted(panels, key=lambda panel: panel.step) for name, panels in found.items()}


def film_frames(panels: Sequence[PanelFile], show: Sequence[str] = ("image", "cluster map")) -> Iterator[np.ndarray]:
    """One frame (H, W, 3) per panel: the pictures in `show` under captions, above the step on a line of time.

    Args:
        show: some of `PANEL`.

    Raises:
        ValueError: an unknown picture; a file that is damaged, or no panel with its boxes.
    """
    unknown = [name for name in show if name not in PANEL]
    if unknown or not show:
        raise ValueError(
            f"A panel has no picture {', '.join(unknown) or '(none named)'}: choose from {', '.join(PANEL)}."
        )
    steps = [panel.step for panel in panels]
    for panel in panels:
        pictures = _read(panel.path)
        frame = sheet([[(name, pictures[name]) for name in show]], LONG_SIDE)
        yield np.concatenate([frame, _time_line(steps, panel.step, frame.shape[1])])


def write_film(frames: Sequence[np.ndarray], path: Path, seconds: float = 0.5) -> None:
    """Write frames of one size as a GIF, WebP or MP4 that stays on its last frame for a while.

    Args:
        seconds: that each frame is shown.

    Raises:
        ValueError: another suffix; an MP4 without PyAV.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"A film cannot be written as {path.name}: choose a name that ends in {', '.join(SUFFIXES)}.")
    with replacing(path) as temporary:
        if path.suffix.lower() == ".mp4":
            times = [seconds * number for number in range(len(frames))]
            write_video(frames, Fraction(seconds).limit_denominator(1000) ** -1, temporary, times, _HOLD * seconds)
            return
        images = [Image.fromarray(frame) for frame in frames]
        if path.suffix.lower() == ".gif":  # flat colors stay flat: no dithering
            images = [image.quantize(256, dither=Image.Dither.NONE) for image in images]
        first, *others = images
        durations = [round(1000 * seconds)] * len(others) + [round(1000 * _HOLD * seconds)]
        options: dict[str, Any] = {"lossless": True} if path.suffix.lower() == ".webp" else {}
        first.save(temporary, save_all=True, append_images=others, duration=durations, loop=0, **options)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The pictures of a panel by caption."""
    try:
        with Image.open(path) as image:
            image.load()
            places = json.loads(image.info[BOXES])
            picture = image.convert("RGB")
        return {name: np.asarray(picture.crop(places[name])) for name in PANEL}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged, or not a panel that says where its pictures are: panels of this version of kmax do."
        ) from error


def _time_line(steps: Sequence[int], step: int, width: int) -> np.ndarray:
    """A line with a mark for each step, filled up to `step`, and its number."""
    canvas = Image.new("RGB", (width, _BAR), PAPER)
    pen, face = ImageDraw.Draw(canvas), font(15)
    text = f"step {step}"
    left, right, middle = 16, width - 24 - round(face.getlength(f"step {steps[-1]}")), _BAR // 2
    span = max(1, steps[-1] - steps[0])
    places = {one: left + (right - left) * (one - steps[0]) / span for one in steps}
    color = cluster_color(0)
    pen.line((left, middle, right, middle), MUTED, 2)
    pen.line((left, middle, places[step], middle), color, 4)
    for one, place in places.items():
        radius = 6 if one == step else 3
        pen.ellipse((place - radius, middle - radius, place + radius, middle + radius), color if one <= step else MUTED)
    pen.text((right + 14, middle), text, INK, face, "lm")
    return np.asarray(canvas)

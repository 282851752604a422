"""Reading and writing videos with PyAV, which nothing else needs."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mts", ".m2ts", ".ts", ".3gp", ".ogv")
)
"""Suffixes, in lower case, of the files that are read as videos."""

_RATE = Fraction(25)  # of videos that do not say
_TICKS = Fraction(1, 90_000)  # of the times of frames in seconds, as fine as MPEG has them
Av = Any  # an object of PyAV, which only videos and cameras need: it may be missing


@dataclass(frozen=True)
class Shown:
    """A frame as a player shows it: `image` (H, W, 3) uint8 RGB, from `time` on, for `duration` seconds; None where the
    video does not say."""

    image: np.ndarray
    time: float | None
    duration: float | None


def shown_frames(container: Av) -> Iterator[Shown]:
    """The frames of an opened video in order: upright as its display matrix says, with square pixels, and with times.

    Raises:
        FFmpegError: it breaks off.
    """
    stream = container.streams.video[0]
    for frame in container.decode(stream):
        image = upright(frame.to_ndarray(format="rgb24"), frame, Fraction(stream.sample_aspect_ratio or 1))
        duration = frame.duration * frame.time_base if frame.duration and frame.time_base else None
        yield Shown(image, frame.time, None if duration is None else float(duration))


def upright(image: np.ndarray, frame: Av, ratio: Fraction = Fraction(1)) -> np.ndarray:
    """A decoded frame (h, w, 3) as it is meant to be seen: with square pixels, mirrored and rotated by multiples of
    90°.

    Args:
        frame: the decoded frame, for its display matrix.
        ratio: width over height of a pixel.
    """
    if ratio != 1:
        width = max(1, round(image.shape[1] * ratio))
        image = np.asarray(Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BILINEAR))
    a, b, c, d = _display_matrix(frame)
    if a * d - b * c < 0:  # mirrored; what remains is a rotation
        image, a, b = image[:, ::-1], -a, -b
    quarters = round(math.degrees(math.atan2(b, a)) / 90)  # clockwise
    return np.ascontiguousarray(np.rot90(image, -quarters))


def _display_matrix(frame: Av) -> tuple[float, float, float, float]:
    """The upper left corner of a frame's display matrix, row by row; the identity if it has
    none. A point (x, y) is shown at (a·x + c·y, b·x + d·y)."""
    for data in frame.side_data:
        if getattr(data.type, "name", "") == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data)[:36])
            return a, b, c, d
    return 1, 0, 0, 1


def import_av() -> Av:
    """PyAV, which only videos and cameras need.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError("Reading videos and cameras needs PyAV: pip install 'kmax-deeplab[demo]'.") from error
    return av


def frame_rate(path: str | Path) -> Fraction:
    """Frames per second of a video, on average."""
    av = import_av()
    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].average_rate or _RATE
    except (av.FFmpegError, OSError, IndexError):
        return _RATE


def write_video(
    frames: Iterable[np.ndarray], rate: Fraction, path: Path, times: Sequence[float] = (), last: float | None = None
) -> None:
    """Encode frames (H, W, 3) uint8 RGB, at least one, as H.264, or MPEG-4 where that encoder is missing.

    Frames of another size than the first are stretched to its size; an odd side loses its last row or column.

    Args:
        rate: frames per second; of the frames without a time.
        times: when each frame is shown, in seconds, ascending.
        last: how long the last frame is shown; default as long as the rate says.

    Raises:
        ValueError: PyAV is not installed.
    """
    av = import_av()
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    ticks = _TICKS if codec == "libx264" else Fraction(1, 1000)  # MPEG-4 counts in 16 bits
    ends = [*times[1:], times[-1] + (last or float(1 / rate))] if times else []
    lengths: dict[int, int] = {}  # of frames in ticks, by their time: encoders do not pass them on
    with av.open(str(path), "w") as container:
        stream = None

        def mux(packets: Iterable[Av]) -> None:
            for packet in packets:
                packet.duration = lengths.get(packet.pts, packet.duration)
                container.mux(packet)

        for number, image in enumerate(frames):
            stream = stream or _add_stream(container, codec, rate, image, ticks if times else None)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[: stream.height, : stream.width]))
            frame = frame.reformat(stream.width, stream.height)
            if times:
                frame.time_base, frame.pts = ticks, round(times[number] / ticks)
                lengths[frame.pts] = max(1, round(ends[number] / ticks) - frame.pts)
            mux(stream.encode(frame))
        assert stream is not None, "at least one frame"
        mux(stream.encode())


def _add_stream(container: Av, codec: str, rate: Fraction, image: np.ndarray, ticks: Fraction | None) -> Av:
    """A stream for frames of the size of `image`; with `ticks` as the unit of their times, or one of its own."""
    stream = container.add_stream(codec, rate=rate)
    stream.height, stream.width = (max(2, side - side % 2) for side in image.shape[:2])
    stream.pix_fmt = "yuv420p"  # what every player knows; wants even sides
    stream.bit_rate = 0  # a constant quality instead
    stream.options = {"crf": "20"} if codec == "libx264" else {"qscale": "3"}
    if ticks is not None:
        stream.codec_context.time_base = ticks
        stream.options = {**stream.options, "bf": "0"}  # frames in the order of their times, or the end is cut off
    return stream

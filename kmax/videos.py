"""Reading and writing videos with PyAV, which nothing else needs."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

_RATE = Fraction(25)  # of videos that do not say


def import_av() -> Any:
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


def write_video(frames: Iterable[np.ndarray], rate: Fraction, path: Path) -> None:
    """Encode frames (H, W, 3) uint8 RGB, at least one, as H.264, or MPEG-4 where that encoder is missing.

    Frames of another size than the first are stretched to its size; an odd side loses its last row or column.

    Raises:
        ValueError: PyAV is not installed.
    """
    av = import_av()
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        stream = None
        for image in frames:
            if stream is None:
                stream = container.add_stream(codec, rate=rate)
                stream.height, stream.width = (side - side % 2 for side in image.shape[:2])
                stream.pix_fmt = "yuv420p"  # what every player knows; wants even sides
                stream.bit_rate = 0  # a constant quality instead
                stream.options = {"crf": "20"} if codec == "libx264" else {"qscale": "3"}
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[: stream.height, : stream.width]))
            container.mux(stream.encode(frame.reformat(stream.width, stream.height)))
        assert stream is not None, "at least one frame"
        container.mux(stream.encode())

"""Videos as players show them: turned and mirrored by their display matrix, with their own times."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from kmax.predict.sources import find_sources, frames
from kmax.videos import write_video

av = pytest.importorskip("av", reason="PyAV is not installed")
ONE = 1 << 16


def quarters() -> np.ndarray:
    """A frame (48, 64) whose quarters have brightness 20, 90, 160 and 230, row by row."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32], image[:24, 32:], image[24:, :32], image[24:, 32:] = 20, 90, 160, 230
    return image


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into the track header (version 0) of an MP4."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 24 + 8 + 8
    content[place : place + 36] = struct.pack(">9i", a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), [[20, 90], [160, 230]]),
        ((0, 1, -1, 0), [[160, 20], [230, 90]]),  # a phone held upright: turned clockwise
        ((-1, 0, 0, -1), [[230, 160], [90, 20]]),
        ((0, -1, 1, 0), [[90, 230], [20, 160]]),
        ((-1, 0, 0, 1), [[90, 20], [230, 160]]),  # mirrored
        ((1, 0, 0, -1), [[160, 230], [20, 90]]),
        ((0, 1, 1, 0), [[20, 160], [90, 230]]),  # transposed
    ],
)
def test_a_video_is_read_as_it_is_shown(tmp_path: Path, matrix: tuple[int, ...], shown: list[list[int]]) -> None:
    write_video([quarters()] * 2, Fraction(10), tmp_path / "a.mp4")
    with_matrix(tmp_path / "a.mp4", *matrix)
    image = next(iter(frames(find_sources(str(tmp_path))))).load()
    height, width = image.shape[:2]
    assert (height, width) == ((48, 64) if matrix[0] else (64, 48))
    corners = image[height // 4 :: height // 2, width // 4 :: width // 2, 0].astype(int)
    np.testing.assert_allclose(corners, shown, atol=6)


def test_the_times_of_frames_are_kept(tmp_path: Path) -> None:
    times, images = [0.0, 0.04, 1.5, 3.0], [np.full((48, 64, 3), 60 * n, np.uint8) for n in range(4)]
    write_video(images, Fraction(25), tmp_path / "a.mp4", times, last=1.0)
    found = list(frames(find_sources(str(tmp_path / "a.mp4"))))
    np.testing.assert_allclose(np.array([frame.time for frame in found], float), np.array(times), atol=1e-3)
    assert found[-1].duration == pytest.approx(1.0, abs=0.05)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(4.0, abs=0.1)


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(), format="rgb24")))
        container.mux(stream.encode())
    assert next(iter(frames(find_sources(str(tmp_path))))).load().shape == (48, 128, 3)

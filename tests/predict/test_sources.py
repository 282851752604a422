"""Files, folders, globs, lists, videos and cameras as streams of frames."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kmax.images import UnreadableImageError, open_image
from kmax.predict.ordered_map import ordered_map
from kmax.predict.sources import count_frames, find_sources, frames


def picture(path: Path, size: tuple[int, int] = (8, 6), color: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (color, 20, 30)).save(path)
    return path


def video(path: Path, length: int = 6) -> Path:
    """A real video, frame n of brightness 30·n."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(length):
            image = np.full((48, 64, 3), 30 * number % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def keys(what: str | list[str]) -> list[str]:
    return [source.key for source in find_sources(what)]


def test_folders_globs_and_lists_name_the_same_files(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png", "deep/c.JPG"):
        picture(tmp_path / name)
    (tmp_path / "notes.md").write_text("no image")
    (tmp_path / "list.txt").write_text("b.jpg\n\na.png\ndeep/c.JPG\n")
    assert keys(str(tmp_path)) == ["a", "b", "deep/c"]
    assert keys(str(tmp_path / "**/*")) == ["a", "b", "deep/c"]
    assert keys(str(tmp_path / "list.txt")) == ["b", "a", "deep/c"]
    assert keys([str(tmp_path / "b.jpg"), str(tmp_path)]) == ["b", "a", "deep/c"]  # each file once


def test_keys_are_unique_and_do_not_depend_on_what_comes_later(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.jpg"):
        picture(tmp_path / "deep" / name)
    assert keys(str(tmp_path)) == ["deep/a.jpg", "deep/a.png", "deep/b"]
    picture(tmp_path / "top.jpg")
    assert keys(str(tmp_path)) == ["deep/a.jpg", "deep/a.png", "deep/b", "top"]
    assert keys(str(tmp_path / "deep/b.jpg")) == ["b"]


@pytest.mark.parametrize(
    ("what", "error", "sentence"),
    [
        ("nowhere", FileNotFoundError, "There is no file or folder"),
        ("*.jpg", FileNotFoundError, "No image or video matches"),
        ("empty", FileNotFoundError, "holds no image and no video"),
        ("notes.md", ValueError, "neither an image nor a video"),
        ("empty.txt", FileNotFoundError, "is empty"),
        ("binary.txt", ValueError, "not text"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, what: str, error: type[Exception], sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(error, match=sentence):
        find_sources(str(tmp_path / what))


def test_images_of_any_mode_come_upright_as_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    Image.new("RGB", (8, 6), (200, 0, 0)).save(tmp_path / "side.jpg", exif=exif)
    assert open_image(tmp_path / "side.jpg").shape == (8, 6, 3)
    Image.fromarray(np.full((4, 5), 40000, np.uint16)).save(tmp_path / "deep.png")
    assert (open_image(tmp_path / "deep.png") == 40000 >> 8).all()
    for mode in ("L", "P", "RGBA", "1", "CMYK"):
        Image.new(mode, (5, 4)).save(tmp_path / "x.tif")
        array = open_image(tmp_path / "x.tif")
        assert array.shape == (4, 5, 3)
        assert array.dtype == np.uint8


def test_damaged_and_missing_files_fail_when_their_turn_comes(tmp_path: Path) -> None:
    picture(tmp_path / "good.png", (200, 100))
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:100])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "list.txt").write_text("cut.png\ngood.png\ntext.jpg\ngone.png\n")
    stream = list(frames(find_sources(str(tmp_path / "list.txt"))))
    for frame in (stream[0], stream[2]):
        with pytest.raises(UnreadableImageError, match="cannot be read as an image"):
            frame.load()
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        stream[3].load()
    assert stream[1].load().shape == (100, 200, 3)


def test_a_video_gives_its_frames_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    video(tmp_path / "clip.mp4")
    sources = find_sources(str(tmp_path))
    assert count_frames(sources) == 6
    found = {frame.key: frame.load() for frame in frames(sources)}
    assert list(found) == [f"clip/{n:06d}" for n in range(6)]
    for number, image in enumerate(found.values()):
        assert image.shape == (48, 64, 3)
        assert abs(image.mean() - 30 * number) < 4
    rest = list(frames(sources, done={"clip/000000", "clip/000001", "clip/000003"}))
    assert [frame.key for frame in rest] == ["clip/000002", "clip/000004", "clip/000005"]
    assert abs(rest[0].load().mean() - 60) < 4


def test_a_broken_video_gives_what_it_has_and_one_failure(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video at all")
    whole = video(tmp_path / "whole.avi", 40).read_bytes()
    (tmp_path / "whole.avi").unlink()
    picture(tmp_path / "z.png")
    (tmp_path / "cut.mkv").write_bytes(whole[:300])  # the header alone
    stream = list(frames(find_sources(str(tmp_path))))
    assert [frame.key for frame in stream] == ["cut", "text", "z"]
    for frame in stream[:2]:
        with pytest.raises(UnreadableImageError, match=frame.name):
            frame.load()


def test_a_camera_gives_frames_without_end_and_goes_on_counting() -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    sources = find_sources("webcam:lavfi:testsrc=size=64x48:rate=1000")
    assert count_frames(sources) is None
    stream = frames(sources, done={"webcam/000000", "webcam/000001"})
    first, second = next(stream), next(stream)
    assert (first.key, second.key) == ("webcam/000002", "webcam/000003")
    assert first.load().shape == (48, 64, 3)
    assert isinstance(stream, Generator)
    stream.close()
    absent = list(frames(find_sources("webcam:/dev/no-such-camera")))
    with pytest.raises(UnreadableImageError, match="no-such-camera"):
        absent[0].load()


def test_without_pyav_a_video_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install 'kmax-deeplab\[demo\]'"):
        next(frames(find_sources(str(tmp_path / "clip.mp4"))))


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_threads_keep_the_order_and_stay_close(workers: int) -> None:
    taken = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    ahead = 0
    for place, result in enumerate(ordered_map(lambda n: n * n, numbers(), workers)):
        assert result == place * place
        ahead = max(ahead, len(taken) - place)
    assert ahead <= workers + 1
    assert len(taken) == 50
    early = ordered_map(str, numbers(), workers)
    assert next(early) == "0"
    assert isinstance(early, Generator)
    early.close()
    assert len(taken) <= 50 + workers + 1

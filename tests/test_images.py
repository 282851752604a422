"""The only reader of images: every mode, depth and orientation by one rule, in training, prediction and serving."""

from __future__ import annotations

import inspect
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import run_python
from kmax.categories import load_categories
from kmax.data import CocoPanoptic
from kmax.data.layouts import files_at
from kmax.data.prepare.check import check_split
from kmax.images import RefusedImageError, UnreadableImageError, open_image, read_image, to_rgb
from kmax.predict import serving

TURN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""How a viewer shows what is stored, by EXIF orientation."""


class Memory:
    """A folder of one file."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, name: str) -> bytes:
        return self.content

    def where(self, name: str) -> str:
        return f"memory/{name}"


def stored(image: Image.Image, kind: str, orientation: int = 1) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(buffer, kind, exif=exif) if kind in ("PNG", "TIFF", "JPEG") else image.save(buffer, kind)
    return buffer.getvalue()


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK")
PLACES = st.sampled_from(
    [(kind, mode) for kind in ("PNG", "TIFF") for mode in MODES if (kind, mode) != ("PNG", "CMYK")]
)


def drawn(mode: str, height: int, width: int, seed: int) -> tuple[Image.Image, np.ndarray]:
    """A picture of a mode, and the colors (H, W, 3) that it shows."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    gray = np.repeat(rgb[..., :1], 3, axis=2)
    if mode == "I;16":
        low = rng.integers(0, 256, (height, width), dtype=np.uint16)
        return Image.fromarray((rgb[..., 0].astype(np.uint16) << 8) + low), gray
    if mode == "1":
        return Image.fromarray(rgb[..., 0] > 127), np.where(gray > 127, 255, 0).astype(np.uint8)
    if mode == "L":
        return Image.fromarray(rgb[..., 0]), gray
    if mode == "LA":
        return Image.fromarray(rgb[..., :2], "LA"), gray
    if mode == "RGBA":
        alpha = rng.integers(0, 256, (height, width, 1), dtype=np.uint8)
        return Image.fromarray(np.concatenate([rgb, alpha], 2)), rgb
    if mode == "P":
        palette = rng.integers(0, 256, (256, 3), dtype=np.uint8)
        image = Image.fromarray(rgb[..., 0])
        image.putpalette(palette.ravel().tolist())
        return image, palette[rgb[..., 0]]
    if mode == "CMYK":
        return Image.fromarray(rgb).convert("CMYK"), rgb
    return Image.fromarray(rgb), rgb


@settings(max_examples=150, deadline=None)
@given(PLACES, st.integers(1, 8), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_every_mode_and_orientation_is_read_by_one_rule(
    place: tuple[str, str], orientation: int, height: int, width: int, seed: int
) -> None:
    image, colors = drawn(place[1], height, width, seed)
    content = stored(image, place[0], orientation)
    expected = TURN[orientation](colors)
    np.testing.assert_array_equal(read_image(Memory(content), "x"), expected)
    np.testing.assert_array_equal(serving.to_rgb(Image.open(io.BytesIO(content))), expected)


def test_serving_has_the_same_rule_word_for_word() -> None:
    assert inspect.getsource(serving.to_rgb) == inspect.getsource(to_rgb)


@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF data", "ignore:.*holds several images")
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 200), st.sampled_from(["PNG", "TIFF", "JPEG", "GIF", "BMP"]))
def test_damage_ends_in_one_sentence(tail: bytes, cut: int, kind: str) -> None:
    """A file with its middle replaced: read, or refused by name; never an error from the depths."""
    content = stored(drawn("RGB", 40, 30, 0)[0], kind, 6)
    sentence = ""
    try:
        assert read_image(Memory(content[:cut] + tail + content[cut + len(tail) + 1 :]), "x.img").dtype == np.uint8
    except UnreadableImageError as error:
        sentence = str(error)
    assert not sentence or sentence.startswith("The image memory/x.img is ")
    assert "\n" not in sentence


@pytest.mark.parametrize("suffix", ["jpg", "jfif", "png", "webp", "avif", "bmp", "gif", "tif", "ppm"])
def test_every_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if path.suffix not in Image.registered_extensions():
        pytest.skip(f"this version of Pillow does not know {path.suffix}")
    Image.new("RGB", (30, 20), (200, 100, 50)).save(path)
    assert np.abs(open_image(path).astype(int) - (200, 100, 50)).max() < 12


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.int32, 3000), (np.float32, 0.5), (np.float32, np.nan), (np.int16, 3000)]
)
def test_a_range_that_is_not_known_is_refused(tmp_path: Path, dtype: type, value: float) -> None:
    path = tmp_path / "deep.tif"
    Image.fromarray(np.full((4, 5), value, dtype)).save(path)
    with pytest.raises(UnreadableImageError, match=r"range is not known: save it with 8 or 16 bits per color\.$"):
        open_image(path)
    with pytest.raises(RefusedImageError, match=r"is refused: its pixels are"):
        read_image(Memory(path.read_bytes()), "deep.tif")
    with pytest.raises(ValueError, match="range is not known"):
        serving.open_image(path)


@pytest.mark.parametrize(("largest", "value", "expected"), [(255, 90, 90), (65535, 40000, 156), (4095, 1000, 62)])
def test_portable_gray_maps_say_their_range(tmp_path: Path, largest: int, value: int, expected: int) -> None:
    pixels = np.full((3, 4), value, ">u2" if largest > 255 else "u1").tobytes()
    (tmp_path / "a.pgm").write_bytes(b"P5\n4 3\n%d\n" % largest + pixels)
    assert (open_image(tmp_path / "a.pgm") == expected).all()


def test_of_several_pictures_the_first_is_read_and_said(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    for suffix in ("gif", "png", "webp", "tif"):
        path = tmp_path / f"a.{suffix}"
        options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
        pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
        with pytest.warns(UserWarning, match=rf"a\.{suffix} holds several images: the first is read"):
            assert (open_image(path) == (255, 0, 0)).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow says so, and continues
def test_damaged_metadata_do_not_cost_the_picture(tmp_path: Path) -> None:
    content = stored(Image.new("RGB", (8, 6), "red"), "JPEG", 6)
    at = content.index(b"Exif\0\0") + 6
    (tmp_path / "a.jpg").write_bytes(content[: at + 4] + b"\xff\xff\xff\xff" + content[at + 8 :])
    assert open_image(tmp_path / "a.jpg").shape == (6, 8, 3)


def huge_png(width: int = 20000, height: int = 10000) -> bytes:
    """The beginning of a PNG of 200 megapixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + struct.pack(">I", 3) + b"IDATabc" + struct.pack(">I", zlib.crc32(b"IDATabc"))


def test_too_many_pixels_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "huge.png").write_bytes(huge_png())
    with pytest.raises(UnreadableImageError, match=r"more than the 179 megapixels .* cut it into tiles\.$"):
        open_image(tmp_path / "huge.png")


def dataset(root: Path, orientation: int, size: tuple[int, int], png: np.ndarray) -> CocoPanoptic:
    """One picture, red on its left as viewers show it, with segment 1 where it is red."""
    for folder in ("images", "png"):
        (root / folder).mkdir()
    shown = np.zeros((*size, 3), np.uint8)
    shown[:, : size[1] // 2] = (200, 0, 0)
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    pixels = np.ascontiguousarray(TURN[inverse](shown))
    (root / "images/1.png").write_bytes(stored(Image.fromarray(pixels), "PNG", orientation))
    Image.fromarray(np.stack([png, 0 * png, 0 * png], -1).astype(np.uint8)).save(root / "png/1.png")
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": png.shape[0], "width": png.shape[1]}],
        "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 1, "category_id": 1}]}],
        "categories": [{"id": 1, "name": "red", "isthing": 1}],
    }
    (root / "a.json").write_text(json.dumps(content))
    return CocoPanoptic(root / "images", root / "png", root / "a.json", load_categories(str(root / "a.json")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_training_and_prediction_see_what_a_viewer_shows(tmp_path: Path, orientation: int) -> None:
    png = np.zeros((20, 30), np.uint8)
    png[:, :15] = 1
    sample = dataset(tmp_path, orientation, (20, 30), png)[0]
    assert (sample.image[sample.segment_map == 1] == (200, 0, 0)).all()
    assert (sample.image[sample.segment_map == 0] == 0).all()
    np.testing.assert_array_equal(open_image(tmp_path / "images/1.png"), sample.image)
    np.testing.assert_array_equal(serving.open_image(tmp_path / "images/1.png"), sample.image)


def test_an_annotation_of_the_unturned_picture_is_named(tmp_path: Path) -> None:
    data = dataset(tmp_path, 6, (20, 30), np.ones((30, 20), np.uint8))
    with pytest.raises(ValueError, match=r"1\.png is 20×30 but its image 1\.png is 30×20: its orientation tag turns"):
        data[0]
    files = files_at(tmp_path / "images", tmp_path / "png", tmp_path / "a.json")
    findings = [str(f) for f in check_split(files, data.categories, "make it again")]
    assert any("as its orientation tag turns it, but its annotation says 20×30" in f for f in findings), findings
    assert any("annotate it as viewers show it, or remove the tag" in f for f in findings)


@pytest.mark.long
def test_serving_reads_without_kmax_and_torch(tmp_path: Path) -> None:
    """The file alone, as it may be copied into a service."""
    (tmp_path / "photo.jpg").write_bytes(stored(Image.new("RGB", (8, 6)), "JPEG", 6))
    code = (
        "import sys, importlib.util as u\n"
        "sys.modules.update(kmax=None, torch=None)\n"
        f"spec = u.spec_from_file_location('serving', {serving.__file__!r})\n"
        "m = u.module_from_spec(spec); sys.modules['serving'] = m; spec.loader.exec_module(m)\n"
        f"print(m.open_image({str(tmp_path / 'photo.jpg')!r}).shape)"
    )
    assert run_python("-c", code).stdout.strip() == "(8, 6, 3)"

"""A folder is a folder, packed or not; whatever is wrong with an archive is named."""

from __future__ import annotations

import os
import pickle
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from kmax.data.storage import Archive, Directory, Folder, find_folder
from trees import pack

CONTENT = {"a.txt": b"", "b/c.txt": b"one", "b/d.txt": b"two" * 1000, "ü.txt": bytes(range(256))}


def write(root: Path, folder: str) -> Path:
    for name, content in CONTENT.items():
        file = root / folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root


def everything(folder: Folder) -> dict[str, bytes]:
    return {name: folder.read(name) for name in folder}


@pytest.mark.parametrize("archive", ["images.zip", "images.tar", "Release2016.zip", "Release2016.tar"])
@pytest.mark.parametrize("top", ["", "Release2016/"])
def test_packed_and_unpacked_are_the_same(tmp_path: Path, archive: str, top: str) -> None:
    containers = () if archive.startswith("images") else (archive,)
    top = "" if not containers else top
    unpacked = find_folder(write(tmp_path, "images"), "images", containers)
    assert isinstance(unpacked, Directory)
    before = everything(unpacked)
    pack(tmp_path, archive, "images", top=top)
    packed = find_folder(tmp_path, "images", containers)
    assert isinstance(packed, Archive)
    assert everything(packed) == before == CONTENT
    assert "b/c.txt" in packed
    assert "c.txt" not in packed
    with pytest.raises(FileNotFoundError, match="nothing"):
        packed.read("nothing")
    assert everything(pickle.loads(pickle.dumps(packed))) == CONTENT


def test_workers_share_an_archive(tmp_path: Path) -> None:
    pack(write(tmp_path, "images"), "images.zip", "images")
    folder = find_folder(tmp_path, "images")
    folder.read("a.txt")  # opens the file before the workers start
    with ProcessPoolExecutor(2) as pool:
        names = ["b/c.txt", "b/d.txt"] * 20
        assert list(pool.map(folder.read, names)) == [CONTENT[name] for name in names]


def test_a_folder_that_is_nowhere_is_named_with_the_places(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"images is missing: .*\(looked for .*Release\.zip\)"):
        find_folder(tmp_path, "images", ("Release.zip",))


@pytest.mark.parametrize("archive", ["images.zip", "images.tar"])
def test_half_an_archive_is_named(tmp_path: Path, archive: str) -> None:
    pack(write(tmp_path, "images"), archive, "images")
    path = tmp_path / archive
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(ValueError, match=rf"{archive} is damaged .*download it again"):
        find_folder(tmp_path, "images")


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    write(tmp_path, "images")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as packed:
        packed.write(tmp_path / "images/b/d.txt", "images/b/d.txt")
    (tmp_path / "images").rename(tmp_path / "away")
    path = tmp_path / "images.zip"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"d\.txt is damaged: download images\.zip again"):
        find_folder(tmp_path, "images").read("b/d.txt")


def test_an_archive_of_something_else_is_named(tmp_path: Path) -> None:
    pack(write(tmp_path, "else"), "Release.zip", "else")
    with pytest.raises(ValueError, match=r"Release\.zip has no folder images"):
        find_folder(tmp_path, "images", ("Release.zip",))

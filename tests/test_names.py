"""Names from outside as file names: safe, unique over the whole set, and the same again; folders claimed once."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kmax.files import claim_folder, walk_files
from kmax.names import bare, flat_name, safe_name, unique_names, without_suffix

PART = st.one_of(
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=12),
    st.sampled_from(["a", "A", "a.jpg", "a.png", "a.jpg.png", ".", "..", "a.", " ", "ä", "a\u0308", "con", "x" * 300]),
)
NAME = st.lists(PART, min_size=1, max_size=3).map("/".join)


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@settings(max_examples=300, deadline=None)
@given(NAME)
@example("../../etc/passwd")
@example("\udcff.jpg")
def test_a_name_becomes_a_path_that_every_file_system_takes(name: str) -> None:
    for safe in (safe_name(name), flat_name(name)):
        parts = safe.split("/")
        assert all(part and part not in (".", "..") and not part.startswith(".") for part in parts)
        assert all(len(part.encode()) <= 180 and not set(part) & set('\\:*?"<>|\n') for part in parts)
        assert len(safe.encode()) <= 1200
    assert "/" not in flat_name(name)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(st.lists(NAME, max_size=7, unique=True), st.data())
def test_names_are_unique_complete_and_kept(names: list[str], data: st.DataObject) -> None:
    folders = data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    keys = unique_names(names, folders=folders)
    assert len(set(map(folded, keys))) == len(names)
    for key, folder in zip(keys, folders, strict=True):
        inside = [other for other in keys if folded(other).startswith(f"{folded(key)}/")]
        assert not (folder and inside)
    order = data.draw(st.permutations(range(len(names))))  # the order of files does not matter
    again = unique_names([names[n] for n in order], folders=[folders[n] for n in order])
    assert dict(zip((names[n] for n in order), again, strict=True)) == dict(zip(names, keys, strict=True))
    if names:  # what an earlier run has named stays, whatever came since
        before = unique_names(names[:-1], folders=folders[:-1])
        known = dict(zip(names[:-1], before, strict=True))
        assert len(set(map(folded, unique_names(names, folders=folders, known=known)))) == len(names)


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["a.jpg", "deep/b.png"], ["a", "deep/b"]),
        (["x.jpg", "x.png", "x.jpg.png"], ["x.jpg", "x.png", "x.jpg.png"]),
        (["A.jpg", "a.jpg.png"], ["A", "a.jpg"]),
        (["Aa.jpg", "aA.png"], ["Aa.jpg", "aA.png"]),
    ],
)
def test_names_are_as_short_as_can_be(names: list[str], keys: list[str]) -> None:
    assert unique_names(names) == keys


def test_files_do_not_meet_folders() -> None:
    """overlay/a.jpg cannot be both the overlay of a.png and the folder of a.jpg/b.png."""
    first, second = unique_names(["a.png", "a.jpg/b.png"])
    assert second == "a.jpg/b"
    assert f"{first}.jpg" != "a.jpg"
    clip, frame = unique_names(["clip.mp4", "clip/000000.png"], folders=[True, False])
    assert (clip, frame) == ("clip.mp4", "clip/000000")


def test_flat_stems_are_kept_where_they_are_unique() -> None:
    forms = (bare, without_suffix, str)
    assert unique_names(["a/1.jpg", "b/2.jpg"], forms) == ["1", "2"]
    assert unique_names(["a/1.jpg", "b/1.jpg"], forms) == ["a/1", "b/1"]
    assert len(set(unique_names(["a/1.jpg", "a/1.jpg"], forms))) == 2


def test_a_known_name_stays_when_others_come() -> None:
    assert unique_names(["a.jpg", "a.png"], known={"a.jpg": "a"}) == ["a", "a.png"]


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: claim_folder(tmp_path / "runs", "now"), range(20)))
    assert len(set(folders)) == 20
    assert {f.name for f in folders} >= {"now", "now-2", "now-20"}


@pytest.mark.long
def test_processes_get_folders_of_their_own(tmp_path: Path) -> None:
    code = "import sys, pathlib, kmax.files; print(kmax.files.claim_folder(pathlib.Path(sys.argv[1]), 'r'))"
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert len({process.communicate()[0] for process in running}) == 3


def test_walking_follows_links_and_leaves_rubbish(tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("in/a.jpg", "in/._a.jpg", "in/.DS_Store", "in/deep/b.jpg", "elsewhere/c.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/deep/circle").symlink_to(tmp_path / "in")
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found, passed = walk_files(tmp_path / "in")
    assert [f.relative_to(tmp_path / "in").as_posix() for f in found] == ["a.jpg", "deep/b.jpg", "linked/c.jpg"]
    assert [f.name for f in passed] == [".DS_Store", "._a.jpg", "circle", "gone.jpg"]

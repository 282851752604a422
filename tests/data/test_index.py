"""The cache of a JSON: the same answers, noticed changes, and nothing that breaks where it cannot be written."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kmax.data.index as module
from kmax.data.index import Index, build_index, cache_files, load_index


def content(images: int = 5) -> dict[str, Any]:
    return {
        "images": [{"id": f"i{n}", "file_name": f"ü{n}.jpg"} for n in range(images)],
        "annotations": [
            {
                "image_id": f"i{n}",
                "file_name": f"{n}.png",
                "segments_info": [{"id": 70_000 * k + 1, "category_id": k, "iscrowd": k % 2} for k in range(n)],
            }
            for n in range(images)
        ],
    }


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "data" / "panoptic.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content()))
    return path


def same(one: Index, other: Index) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Index))


def test_the_cache_says_what_the_json_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = build_index(content(), path)
    assert same(load_index(path), expected)
    assert cache_files(path)[0].is_file()
    monkeypatch.setattr(module, "build_index", None)  # from here on the JSON is not parsed
    index = load_index(path)
    assert same(index, expected)
    assert isinstance(index.segment_id.base, np.memmap)
    assert index.names(3) == ("ü3.jpg", "3.png")
    assert index.segments(2) == [(1, 0, False), (70_001, 1, True)]
    assert index.segments(0) == []
    assert index.annotation_with(3) == "4.png"
    assert index.image_id.tolist() == [f"i{n}" for n in range(5)]
    sent = pickle.dumps(index)
    assert len(sent) < 500
    assert same(pickle.loads(sent), expected)


def test_a_changed_json_is_noticed(path: Path) -> None:
    assert len(load_index(path)) == 5
    path.write_text(json.dumps(content(4)))
    assert len(load_index(path)) == 4
    before = path.stat()
    text = path.read_text().replace('"0.png"', '"9.png"')  # of the same size, at the same time
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_index(path).names(0)[1] == "9.png"


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b"", lambda b: b"x" * len(b), lambda b: b + b"1"])
def test_a_damaged_cache_is_made_anew(path: Path, damage: Any) -> None:
    expected = load_index(path)
    cache = cache_files(path)[0]
    good = cache.read_bytes()
    cache.unlink()
    cache.write_bytes(damage(good))
    assert same(load_index(path), expected)
    assert cache.read_bytes() == good


def test_a_read_only_folder_uses_the_users_cache_and_none_at_all_is_fine(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(forbidden: tuple[Path, ...]) -> None:
        def write(cache: Path, key: str, index: Index) -> None:
            if cache in forbidden:
                raise PermissionError(cache)
            original(cache, key, index)

        monkeypatch.setattr(module, "_write_cache", write)

    original = module._write_cache
    beside, user = cache_files(path)
    refuse((beside,))
    assert len(load_index(path)) == 5
    assert (beside.exists(), user.exists()) == (False, True)
    user.unlink()
    refuse((beside, user))
    assert len(load_index(path)) == 5
    assert (beside.exists(), user.exists()) == (False, False)


def break_image(data: dict) -> None:
    data["images"].append(data["images"][0])


def break_annotation(data: dict) -> None:
    data["annotations"].append(data["annotations"][0])


def break_zero(data: dict) -> None:
    data["annotations"][1]["segments_info"][0]["id"] = 0


def break_large(data: dict) -> None:
    data["annotations"][1]["segments_info"][0]["id"] = 1 << 24


def break_duplicate(data: dict) -> None:
    data["annotations"][2]["segments_info"][0]["id"] = 70_001


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_image, "lists an image twice"),
        (break_annotation, "image i0 has two annotations"),
        (break_zero, r"annotations\[1\] \(1\.png\)\.segments_info\[0\]\.id is 0, but must be an integer in 1 …"),
        (break_large, r"segments_info\[0\]\.id is 16777216, but must be an integer in 1 … 16777215"),
        (break_duplicate, r"2\.png need distinct ids"),
    ],
)
def test_a_json_that_contradicts_itself_is_refused(path: Path, damage: Any, message: str) -> None:
    data = content()
    damage(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message):
        load_index(path)
    assert not cache_files(path)[0].exists()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"annotations": [{"id": 1, "image_id": "i0", "segmentation": [[1, 2, 3, 4, 5, 6]]}]}, "COCO instances JSON"),
        ({"annotations": [{"id": 1, "image_id": "i0", "bbox": [0, 0, 1, 1]}]}, "COCO detection: boxes without masks"),
        ({"annotations": None}, "COCO JSON without annotations"),
        ({"images": None, "shapes": [], "imagePath": "a.jpg"}, "Labelme JSON"),
    ],
)
def test_other_json_is_refused_by_its_kind(path: Path, changes: dict[str, Any], kind: str) -> None:
    whole = {**content(), "categories": [], **changes}
    path.write_text(json.dumps({key: value for key, value in whole.items() if key != "images" or value is not None}))
    with pytest.raises(ValueError, match=f"is not panoptic but {kind}.*prepare_own.py"):
        load_index(path)


def test_a_user_without_a_home_has_no_cache_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has no entry in /etc/passwd."""

    def no_entry(user: int) -> None:
        raise KeyError(user)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    assert [file.parent for file in cache_files(tmp_path / "a.json")] == [tmp_path]

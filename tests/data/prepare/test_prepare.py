"""Preparation: packed or not, interrupted or not, the result is one and the same; nothing half-written stays."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trees
from kmax.data import ADE20KPanoptic, CityscapesPanoptic, CocoPanoptic
from kmax.data.prepare import Options, check, parse, prepare, run
from kmax.data.prepare.panoptic import _Conversion
from kmax.files import write_bytes

DATASETS = {"cityscapes": CityscapesPanoptic, "ade20k": ADE20KPanoptic}


def tree(dataset: str, root: Path) -> Path:
    return {"cityscapes": trees.cityscapes, "ade20k": trees.ade20k}[dataset](root)


def pack(dataset: str, root: Path) -> None:
    if dataset == "cityscapes":
        trees.pack(root, "leftImg8bit_trainvaltest.zip", "leftImg8bit")
        trees.pack(root, "gtFine_trainvaltest.zip", "gtFine")
    else:
        trees.pack(root, "ADEChallengeData2016.zip", "images", "annotations", top="ADEChallengeData2016/")
        trees.pack(root, "annotations_instance.tar", "annotations_instance")


def outputs(root: Path) -> dict[str, bytes]:
    files = [f for f in root.rglob("*") if f.is_file() and "panoptic" in str(f.relative_to(root))]
    return {str(f.relative_to(root)): f.read_bytes() for f in files}


def leftovers(root: Path) -> list[Path]:
    return [f for f in root.rglob("*") if f.name.startswith(".")]


@pytest.mark.long
@pytest.mark.parametrize("dataset", DATASETS)
def test_packed_unpacked_and_linked_give_the_same(dataset: str, tmp_path: Path) -> None:
    plain, packed = tree(dataset, tmp_path / "plain"), tree(dataset, tmp_path / "packed")
    pack(dataset, packed)
    prepare(dataset, Options(plain))
    prepare(dataset, Options(tmp_path / "linked", source=packed))
    assert outputs(tmp_path / "linked") == outputs(plain)
    assert len(outputs(plain)) == 4 + 2 + 2
    assert not outputs(packed)
    prepare(dataset, Options(packed, unpack=True, workers=2))
    assert outputs(packed) == outputs(plain)
    for root in (plain, packed, tmp_path / "linked"):
        assert not leftovers(root)
        assert not check(dataset, Options(root, subset=True))
        datasets = [DATASETS[dataset](root, split) for split in ("train", "val")]
        assert [len(each) for each in datasets] == [4, 2]
        assert all(len(each[i].segments) for each in datasets for i in range(len(each)))
    for archive in packed.glob("*.*"):  # what was unpacked is enough
        archive.unlink() if archive.suffix in (".zip", ".tar") else None
    assert not check(dataset, Options(packed, subset=True))


@pytest.mark.parametrize("dataset", DATASETS)
def test_an_interrupted_run_goes_on(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tree(dataset, tmp_path / "whole"), tree(dataset, tmp_path / "broken")
    prepare(dataset, Options(whole))
    convert = _Conversion.__call__
    done: list[str] = []

    def only_three(self: _Conversion, key: str) -> object:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(key)
        return convert(self, key)

    monkeypatch.setattr(_Conversion, "__call__", only_three)
    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, Options(broken))
    assert sum(name.endswith(".png") for name in outputs(broken)) == 3
    assert not list(broken.rglob("*panoptic*.json"))
    journal = next(broken.rglob(".*unfinished"))
    journal.write_text(journal.read_text()[:-40])  # killed while writing its last line
    done[:] = []

    def noted(self: _Conversion, key: str) -> object:
        done.append(key)
        return convert(self, key)

    monkeypatch.setattr(_Conversion, "__call__", noted)
    prepare(dataset, Options(broken))
    assert len(done) == 6 - 2
    assert outputs(broken) == outputs(whole)
    assert not leftovers(broken)


def test_running_again_changes_nothing_and_repairs_what_is_missing(tmp_path: Path) -> None:
    root = trees.cityscapes(tmp_path)
    prepare("cityscapes", Options(root))
    before = outputs(root)
    stamps = {file: file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()}
    prepare("cityscapes", Options(root))
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()} == stamps
    next((root / "gtFine/cityscapes_panoptic_train").iterdir()).unlink()
    annotation_file = root / "gtFine/cityscapes_panoptic_val.json"
    annotation_file.write_text(annotation_file.read_text()[:200])
    prepare("cityscapes", Options(root))
    assert outputs(root) == before


@pytest.mark.parametrize("failing", ["png", "json"])
def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root = trees.ade20k(tmp_path)
    replace = os.replace

    def full(source: str, target: str) -> None:
        if str(target).endswith(failing):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ValueError, match=rf"The disk is full \(.*\.{failing} .*run the same command again"):
        run("ade20k", Options(root))
    assert not list(root.rglob(f".{os.getpid()}-*")) + list(root.rglob(".[0-9]*-*.png"))
    assert not list(root.glob("*.json"))
    monkeypatch.undo()
    prepare("ade20k", Options(root))
    assert not check("ade20k", Options(root, subset=True))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_is_really_full(tiny_disk: Path) -> None:
    write_bytes(tiny_disk / "a", bytes(40_000))
    with pytest.raises(ValueError, match="The disk is full"):
        write_bytes(tiny_disk / "b", bytes(40_000))
    assert [file.name for file in tiny_disk.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("dataset", "missing", "named"),
    [
        ("cityscapes", "gtFine", "gtFine_trainvaltest.zip"),
        ("cityscapes", "leftImg8bit", "leftImg8bit_trainvaltest.zip"),
        ("ade20k", "annotations_instance", "annotations_instance.tar"),
        ("ade20k", "images", "ADEChallengeData2016.zip"),
    ],
)
def test_a_missing_download_is_named(dataset: str, missing: str, named: str, tmp_path: Path) -> None:
    root = tree(dataset, tmp_path)
    (root / missing).rename(tmp_path.parent / f"away-{dataset}-{missing}")
    with pytest.raises(FileNotFoundError, match=named):
        prepare(dataset, Options(root))


def test_annotations_that_disagree_or_are_damaged_are_named(tmp_path: Path) -> None:
    root = trees.ade20k(tmp_path)
    path = root / "annotations_instance/training/ADE_train_00000002.png"
    Image.new("RGB", (3, 3)).save(path)
    with pytest.raises(ValueError, match=r"ADE_train_00000002\.png is 3×3×3 but"):
        prepare("ade20k", Options(root))
    path.write_bytes(b"not a PNG")
    with pytest.raises(ValueError, match=r"ADE_train_00000002\.png is damaged"):
        prepare("ade20k", Options(root))
    Image.fromarray(np.full((100, 100), 40_000, np.uint16)).save(path)
    root = trees.cityscapes(tmp_path / "cityscapes")
    path = next((root / "gtFine/train").rglob("*instanceIds.png"))
    Image.fromarray(np.full((100, 100), 40_000, np.uint16)).save(path)
    with pytest.raises(ValueError, match=r"instanceIds\.png has the value 40000"):
        prepare("cityscapes", Options(root))


def test_coco_reads_archives_and_writes_semantic_maps(sample_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "downloads"
    for name in ("val2017", "annotations/panoptic_val2017"):
        (source / name).mkdir(parents=True)
    content = json.loads((sample_data / "coco128/annotations/panoptic_val2017.json").read_text())
    content["images"] = sorted(content["images"], key=lambda image: image["id"])[:3]
    ids = [image["id"] for image in content["images"]]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    for kind, entries in (("val2017", content["images"]), ("annotations/panoptic_val2017", content["annotations"])):
        for entry in entries:
            (source / kind / entry["file_name"]).write_bytes(
                (sample_data / "coco128" / kind / entry["file_name"]).read_bytes()
            )
    (source / "annotations/panoptic_val2017.json").write_text(json.dumps(content))
    trees.pack(source, "val2017.zip", "val2017")
    trees.pack(source / "annotations", "panoptic_val2017.zip", "panoptic_val2017")
    trees.pack(source, "panoptic_annotations_trainval2017.zip", "annotations")
    root = tmp_path / "coco"
    arguments = ["--root", str(root), "--source", str(source), "--splits", "val", "--workers", "0"]
    assert run("coco", parse("coco", "", [*arguments, "--semantic"])) == 0
    assert run("coco", parse("coco", "", [*arguments, "--check", "--subset"])) == 0
    dataset = CocoPanoptic(
        root / "val2017", root / "annotations/panoptic_val2017", root / "annotations/panoptic_val2017.json"
    )
    assert sorted(dataset.image_ids) == ids
    for i in range(3):
        sample = dataset[i]
        semantic = np.asarray(Image.open(root / "annotations/semantic_val2017" / f"{dataset.image_ids[i]:012d}.png"))
        labels = {0: 255, **{s.id: s.label for s in sample.segments}}
        assert np.array_equal(semantic, np.vectorize(labels.get)(sample.segment_map))
    assert run("coco", parse("coco", "", [*arguments, "--unpack"])) == 0
    assert len(list((root / "val2017").iterdir())) == 3
    assert len(list((root / "annotations/panoptic_val2017").iterdir())) == 3


def test_a_source_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--source"):
        prepare("coco", Options(tmp_path, source=tmp_path / "nowhere"))

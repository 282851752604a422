"""Every kind of damage is found, and its finding names the file and the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import trees
from kmax.categories import load_categories
from kmax.data.layouts import files_at
from kmax.data.prepare import Options, check, prepare, run
from kmax.data.prepare.check import Finding, check_split

JSON = "annotations/panoptic_train.json"
PNG = "annotations/panoptic_train/0.png"
Damage = Callable[[Path, dict[str, Any]], None]


def look(root: Path) -> list[Finding]:
    folder = root / "annotations/panoptic_train"
    categories = load_categories(str(root / "classes.json"))
    return check_split(files_at(root / "train", folder, folder.with_suffix(".json")), categories, "make it again", 4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = trees.coco_format(tmp_path)
    (root / "classes.json").write_text((root / JSON).read_text())
    assert look(root) == []
    return root


def repaint(root: Path, change: Callable[[np.ndarray], None]) -> None:
    rgb = np.array(Image.open(root / PNG))
    change(rgb)
    Image.fromarray(rgb).save(root / PNG)


def first_segment(content: dict[str, Any]) -> dict[str, Any]:
    return content["annotations"][0]["segments_info"][0]


def duplicate_image(root: Path, content: dict[str, Any]) -> None:
    content["images"].append(content["images"][0])


def unknown_category(root: Path, content: dict[str, Any]) -> None:
    first_segment(content)["category_id"] = 999


def id_zero(root: Path, content: dict[str, Any]) -> None:
    first_segment(content)["id"] = 0


def duplicate_id(root: Path, content: dict[str, Any]) -> None:
    content["annotations"][0]["segments_info"].append(first_segment(content))


def wrong_area(root: Path, content: dict[str, Any]) -> None:
    first_segment(content)["area"] += 1


def absent_segment(root: Path, content: dict[str, Any]) -> None:
    content["annotations"][0]["segments_info"].append({**first_segment(content), "id": 12345})


def forgotten_segment(root: Path, content: dict[str, Any]) -> None:
    content["annotations"][0]["segments_info"].pop()


def stray_annotation(root: Path, content: dict[str, Any]) -> None:
    content["images"].pop()


def other_size_in_json(root: Path, content: dict[str, Any]) -> None:
    content["images"][0]["width"] += 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (duplicate_image, "image id 0 occurs 2 times"),
        (unknown_category, "category 999"),
        (id_zero, "ids start at 1"),
        (duplicate_id, r"segment \d+ of 0\.png occurs 2 times"),
        (wrong_area, r"segment \d+ has \d+ pixels but"),
        (absent_segment, "segment 12345 is not in"),
        (forgotten_segment, r"segment \d+ is not in .*panoptic_train\.json"),
        (stray_annotation, r"annotation 3\.png belongs to no image"),
        (other_size_in_json, r"0\.jpg: is \d+×\d+ but the JSON says"),
    ],
)
def test_a_damaged_json_is_found(root: Path, damage: Damage, problem: str) -> None:
    content = json.loads((root / JSON).read_text())
    damage(root, content)
    (root / JSON).write_text(json.dumps(content))
    findings = look(root)
    assert any(re.search(problem, str(finding)) for finding in findings), findings
    assert all(finding.remedy for finding in findings)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("train/0.jpg", None, r"0\.jpg: is missing; download or unpack it again"),
        ("train/0.jpg", 500, r"0\.jpg: is damaged"),
        (PNG, None, r"0\.png: is missing; delete .* make it again"),
        (PNG, 300, r"0\.png: is damaged"),
        (JSON, 1000, r"panoptic_train\.json: is not valid JSON"),
        (JSON, None, r"panoptic_train\.json: is missing; make it again"),
    ],
)
def test_a_damaged_file_is_found(root: Path, name: str, content: int | None, problem: str) -> None:
    path = root / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:content])
    assert [finding for finding in look(root) if re.search(problem, str(finding))]


def test_a_png_of_another_size_is_found(root: Path) -> None:
    Image.open(root / PNG).crop((0, 0, 50, 40)).save(root / PNG)
    assert any("0.png: is 50×40 but its image 0.jpg is" in str(finding) for finding in look(root))


def test_a_painted_pixel_is_found(root: Path) -> None:
    repaint(root, lambda rgb: rgb.__setitem__((3, 3), (1, 2, 3)))
    assert any("segment 197121 is not in" in str(finding) for finding in look(root))


@pytest.mark.parametrize(("mode", "kind"), [("L", "a grayscale PNG"), ("P", "a palette PNG")])
def test_a_png_that_holds_no_colors_is_found_once(root: Path, mode: str, kind: str) -> None:
    classes = Image.fromarray(np.array(Image.open(root / PNG))[..., 0])
    if mode == "P":
        classes.putpalette([n * 37 % 256 for n in range(3, 771)])
    classes.save(root / PNG)
    findings = [finding for finding in look(root) if "area" not in finding.problem]
    assert [finding.problem.partition(",")[0] for finding in findings] == [f"is {kind}"]
    assert findings[0].file == str(root / PNG)
    assert "make it again" in findings[0].remedy


def test_an_empty_image_is_only_noted(root: Path) -> None:
    repaint(root, lambda rgb: rgb.fill(0))
    content = json.loads((root / JSON).read_text())
    content["annotations"][0]["segments_info"] = []
    (root / JSON).write_text(json.dumps(content))
    assert [(finding.problem, finding.is_note) for finding in look(root)] == [("has no segment", True)]


def test_the_exit_status_tells(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = trees.ade20k(tmp_path)
    assert run("ade20k", Options(root, check=True, subset=True)) == 1
    assert "ade20k_panoptic_train is missing" in capsys.readouterr().err
    prepare("ade20k", Options(root))
    assert run("ade20k", Options(root, check=True, subset=True)) == 0
    assert run("ade20k", Options(root, check=True)) == 1
    assert "4 images, but the official release has 20210" in capsys.readouterr().err
    (root / "ade20k_panoptic_val/ADE_val_00000001.png").unlink()
    findings = check("ade20k", Options(root, subset=True))
    assert [f.problem for f in findings] == ["is missing"]
    assert "scripts/prepare_ade20k.py" in findings[0].remedy

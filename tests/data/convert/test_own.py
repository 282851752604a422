"""The command as a whole: splits, names, resuming, refusals."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import foreign_formats as foreign
from conftest import run_python
from kmax.data.convert import writer
from kmax.data.convert.check import check
from kmax.data.convert.names import unique_stems
from kmax.data.convert.options import Options, parse
from kmax.data.convert.own import convert, report
from kmax.data.convert.source import Item
from kmax.data.convert.split import stratified
from kmax.data.convert.statistics import statistics, warnings
from kmax.visualization.ground_truth import preview
from small_sources import SQUARE, coco, picture


def state(root: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def categories(root: Path) -> list[tuple[str, bool]]:
    content = json.loads((root / "annotations/panoptic_train.json").read_text())
    return [(c["name"], bool(c["isthing"])) for c in content["categories"]]


# Splits and names


@given(
    st.lists(st.frozensets(st.sampled_from("abcd"), max_size=3), min_size=2, max_size=60),
    st.sampled_from([0.1, 0.2, 0.5]),
    st.integers(0, 3),
)
def test_every_class_is_split_in_proportion(labels: list[frozenset[str]], part: float, seed: int) -> None:
    items = [Item(f"{n:03d}.jpg", None, own) for n, own in enumerate(labels)]
    val = stratified(items, part, seed)
    assert val == stratified(list(reversed(items)), part, seed)
    assert 0 < len(val) < len(items)
    assert abs(len(val) - part * len(items)) <= 4
    total = Counter(label for item in items for label in item.labels)
    chosen = Counter(label for item in items if item.key in val for label in item.labels)
    for label, count in total.items():
        assert abs(chosen[label] - part * count) <= 0.2 * count + 3


def test_a_rare_class_is_seen_in_both_splits() -> None:
    items = [Item(f"{n}.jpg", None, frozenset({"common", *({"rare"} if n < 5 else ())})) for n in range(100)]
    for seed in range(20):
        assert len({f"{n}.jpg" for n in range(5)} & stratified(items, 0.2, seed)) == 1


def test_what_is_assigned_stays_where_it_is() -> None:
    items = [Item(f"{n}.jpg", None, frozenset({"a"})) for n in range(20)]
    before = stratified(items[:10], 0.2, 0)
    kept = {item.key: "val" if item.key in before else "train" for item in items[:10]}
    after = stratified(items, 0.2, 0, kept)
    assert after & kept.keys() == before
    assert len(after) == 4


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1), unique=True, max_size=12))
def test_names_are_safe_and_unique(keys: list[str]) -> None:
    stems = unique_stems(keys)
    assert set(stems) == set(keys)
    assert len({stem.casefold() for stem in stems.values()}) == len(keys)
    for stem in stems.values():
        assert re.fullmatch(r"[\w.-]+", stem)
        assert len(stem.encode()) < 200
        assert not stem.startswith((".", "-"))


def test_names_stay_short_where_they_can() -> None:
    keys = ["a/1.jpg", "b/1.jpg", "x.jpg", "x.png", "Y.jpg", "y.JPG", "my photo.jpg"]
    stems = unique_stems(keys)
    assert [stems[key] for key in keys[:4]] == ["a_1", "b_1", "x_jpg", "x_png"]
    assert stems["my photo.jpg"] == "my_photo"


def test_equal_names_in_two_folders_all_arrive(tmp_path: Path) -> None:
    images, annotations = [], []
    for n, name in enumerate(("a/1.jpg", "b/1.jpg", "x.jpg", "x.png", "X.jpeg")):
        picture(tmp_path / "in" / name)
        images.append({"id": n, "file_name": name})
        annotations.append({"image_id": n, "category_id": 1, "segmentation": [[n, 0, n + 9, 0, n + 9, 9]]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]}
    (tmp_path / "in" / "coco.json").write_text(json.dumps(content))
    options = Options(root=tmp_path / "out", source=tmp_path / "in")
    convert(options)
    assert len(list(tmp_path.glob("out/*/*.*"))) == 5 + 2  # images and two JSON files
    assert len(list(tmp_path.glob("out/annotations/*/*.png"))) == 5
    assert [finding for finding in check(options) if not finding.is_note] == []


# Resuming


@pytest.fixture
def labelme(tmp_path: Path) -> Path:
    """Six images of shapes in Labelme's format."""
    foreign.labelme(tmp_path / "in", foreign.synthetic(6), "mask")
    return tmp_path / "in"


def test_an_interrupted_conversion_goes_on(labelme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(Options(root=tmp_path / "whole", source=labelme))
    options = Options(root=tmp_path / "out", source=labelme)
    original, calls = writer.encode_ids, []

    def failing(segment_map: np.ndarray) -> bytes:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(segment_map)

    monkeypatch.setattr(writer, "encode_ids", failing)
    with pytest.raises(KeyboardInterrupt):
        convert(options)
    assert not list(options.root.glob("annotations/*.json"))  # nothing that training would take for whole
    assert not list(options.root.rglob(".*-*"))
    for file in options.root.rglob("*.png"):
        Image.open(file).load()
    convert(options)
    assert len(calls) == 4 + 3  # three were finished, the fourth is made again
    assert state(options.root) == state(tmp_path / "whole")
    convert(options)
    assert len(calls) == 7


def test_only_what_has_changed_is_made_again(labelme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(root=tmp_path / "out", source=labelme)
    convert(options)
    made: list[int] = []
    original = writer.encode_ids

    def noted(ids: np.ndarray) -> np.ndarray:
        made.append(1)
        return original(ids)

    monkeypatch.setattr(writer, "encode_ids", noted)
    content = json.loads((labelme / "0.json").read_text())
    (labelme / "0.json").write_text(json.dumps({**content, "shapes": []}))
    before = {p.name: p.parent.name for p in options.root.glob("*/*.png")}
    foreign.labelme(labelme, [foreign.Truth("new.png", t.image, t.segment_map, t.parts) for t in foreign.synthetic(1)])
    written = convert(options)
    assert len(made) == 2
    assert sum(written.image_counts.values()) == 7
    after = {p.name: p.parent.name for p in options.root.glob("*/*.png")}
    assert before.items() <= after.items()  # no image changes its split


def test_other_options_replace_everything_and_leave_nothing_stale(labelme: Path, tmp_path: Path) -> None:
    changes: tuple[dict[str, Any], ...] = ({}, {"val": 0.5}, {"unlabeled": "void"}, {"seed": 5, "link": True})
    for n, options in enumerate(changes):
        convert(Options(root=tmp_path / "out", source=labelme, **options))
        convert(Options(root=tmp_path / f"fresh{n}", source=labelme, **options))
        assert state(tmp_path / "out") == state(tmp_path / f"fresh{n}")
    (labelme / "0.json").unlink()
    convert(Options(root=tmp_path / "out", source=labelme, seed=5, link=True))
    assert len(list(tmp_path.glob("out/*/*.png"))) == len(list(tmp_path.glob("out/annotations/*/*.png"))) == 5


@pytest.mark.long
def test_links_and_processes(labelme: Path, tmp_path: Path) -> None:
    foreign.labelme(labelme, [foreign.Truth(f"z{n}.png", t.image, t.segment_map, t.parts)
                              for n in range(5) for t in foreign.synthetic(4)])  # fmt: skip
    convert(Options(root=tmp_path / "one", source=labelme))
    mode = os.stat(labelme / "0.png").st_mode
    convert(Options(root=tmp_path / "two", source=labelme, link=True, workers=2))
    links = list(tmp_path.glob("two/*/*.png"))
    assert all(p.is_symlink() and p.resolve().parent == labelme for p in links)
    assert os.stat(labelme / "0.png").st_mode == mode
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert {k: v for k, v in one.items() if k.endswith("png")} == {k: v for k, v in two.items() if k.endswith("png")}


def test_a_damaged_picture_is_left_out_by_name(labelme: Path, tmp_path: Path) -> None:
    whole = (labelme / "0.png").read_bytes()
    (labelme / "0.png").write_bytes(whole[: len(whole) // 2])
    (labelme / "1.json").write_text((labelme / "1.json").read_text().replace('"imageHeight": ', '"imageHeight": 7'))
    options = Options(root=tmp_path / "out", source=labelme, val=0.5)
    written = convert(options)
    assert sum(written.image_counts.values()) == 4
    assert [sentence.split(":")[0] for sentence in written.refused] == ["0.png (Labelme JSON)", "1.png (Labelme JSON)"]
    assert "Left out: 0.png (Labelme JSON): " in report(written, options)
    assert check(options) == []


# Classes


def test_options_choose_classes_and_kinds(tmp_path: Path) -> None:
    truths = foreign.synthetic(6)
    foreign.coco_instances(tmp_path / "in", truths)
    first, second, *_ = foreign.thing_names(truths)
    convert(Options(root=tmp_path / "a", source=tmp_path / "in", stuff=(first.upper(),)))
    assert (first, False) in categories(tmp_path / "a")
    assert categories(tmp_path / "a")[-1] == ("background", False)
    convert(Options(root=tmp_path / "b", source=tmp_path / "in", classes=(second, first), unlabeled="void"))
    assert categories(tmp_path / "b") == [(second, True), (first, True)]
    convert(Options(root=tmp_path / "c", source=tmp_path / "in", ignore=(first,)))
    assert first not in dict(categories(tmp_path / "c"))


def test_a_background_of_the_source_is_used(tmp_path: Path) -> None:
    names = [{"id": 0, "name": "_Background_"}, {"id": 1, "name": "cup"}]
    annotations = [{"image_id": 0, "category_id": 1, "segmentation": [SQUARE]}]
    coco(tmp_path / "in", categories=names, annotations=annotations)
    convert(Options(root=tmp_path / "out", source=tmp_path / "in"))
    assert categories(tmp_path / "out") == [("_Background_", False), ("cup", True)]


# Refusals


def lay(folder: Path, files: dict[str, Any]) -> Path:
    """Write text, JSON, and images (None)."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            picture(path)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


IMAGE = {"id": 0, "file_name": "a.png", "height": 40, "width": 60}
CUP = {"id": 0, "name": "cup"}
BOX = {"id": 0, "image_id": 0, "category_id": 0, "bbox": [0, 0, 9, 9]}
MASK = {**BOX, "segmentation": [SQUARE]}
SHAPE = {"shapes": [{"label": "a", "points": []}], "imagePath": "a.png"}
XML = '<annotations><track id="0" label="a"></track></annotations>'
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"readme.md": "hello"}, "holds 1 .md files"),
    "images": ({"a.png": None}, "holds 1 images and no annotation"),
    "boxes": (
        {"a.png": None, "c.json": {"images": [IMAGE], "annotations": [BOX], "categories": [CUP]}},
        "COCO detection: boxes without masks",
    ),
    "captions": (
        {"c.json": {"images": [IMAGE], "annotations": [{"caption": "a"}], "categories": []}},
        "COCO captions",
    ),
    "keypoints": (
        {"c.json": {"images": [IMAGE], "annotations": [{**BOX, "keypoints": [1]}], "categories": [CUP]}},
        "COCO keypoints",
    ),
    "test images": ({"c.json": {"images": [IMAGE], "categories": [CUP]}}, "COCO JSON without annotations"),
    "no images": (
        {"c.json": {"images": [IMAGE], "annotations": [MASK], "categories": [CUP]}},
        "is COCO instances JSON, but none of its images is below",
    ),
    "category": (
        {"a.png": None, "c.json": {"images": [IMAGE], "annotations": [MASK], "categories": [{"id": 9, "name": "x"}]}},
        "is COCO instances JSON with an annotation of category 0, which is not among its categories",
    ),
    "twice": (
        {"a.png": None, "c.json": {"images": [IMAGE, IMAGE], "annotations": [MASK], "categories": [CUP]}},
        "is COCO instances JSON with an image id that occurs twice",
    ),
    "no name": (
        {"a.png": None, "c.json": {"images": [IMAGE], "annotations": [MASK], "categories": [{"id": 0}]}},
        "every category needs an id and a name",
    ),
    "label studio": ({"c.json": [{"data": {"image": "a"}, "annotations": []}]}, "the JSON export of Label Studio"),
    "via": ({"c.json": {"a.jpg12": {"filename": "a.jpg", "regions": []}}}, "VGG Image Annotator JSON"),
    "supervisely": ({"c.json": {"size": {}, "objects": []}}, "Supervisely JSON"),
    "broken JSON": ({"c.json": "{"}, "is not valid JSON"),
    "one labelme": ({"a.png": None, "a.json": SHAPE}, "(Labelme JSON) has 1 usable image: training needs two"),
    "no class": (
        {"a.png": None, "b.png": None, "a.json": {**SHAPE, "shapes": []},
         "b.json": {**SHAPE, "shapes": [], "imagePath": "b.png"}},
        "(Labelme JSON) name no class",
    ),
    "cvat video": ({"a.xml": XML}, "is CVAT for video"),
    "broken XML": ({"a.xml": "<annotations>"}, "is not valid XML"),
    "cvat without images": (
        {"a.xml": '<annotations><image id="0" name="q.png" width="1" height="1"/></annotations>'},
        "is CVAT for images 1.1 XML, but none of its images",
    ),
    "odd labelme": ({"a.png": None, "a.json": {**SHAPE, "shapes": [3]}}, "looks like Labelme, but an entry is not as"),
    "odd coco": (
        {"a.png": None, "c.json": {"images": [3], "annotations": [MASK], "categories": [CUP]}},
        "looks like COCO instances (CVAT, Roboflow and Label Studio write it as well), but an entry",
    ),
    "voc boxes": ({"JPEGImages/a.png": None, "Annotations/a.xml": "<annotation/>"}, "is Pascal VOC detection"),
    "voc names": (
        {"JPEGImages/a.png": None, "SegmentationClass/b.png": None},
        "is Pascal VOC segmentation, but no image",
    ),
    "yolo boxes": (
        {"images/a.png": None, "labels/a.txt": "0 .5 .5 .1 .1", "data.yaml": "names: [cup]\ntrain: images"},
        "is YOLO detection: boxes without masks",
    ),
    "yolo class": (
        {"images/a.png": None, "labels/a.txt": "3 .1 .1 .5 .1 .5 .5", "data.yaml": "names: [cup]\ntrain: images"},
        "is YOLO segmentation with class 3, which the list of names lacks",
    ),
    "yolo line": (
        {"images/a.png": None, "labels/a.txt": "cup .1 .1", "data.yaml": "names: [cup]\ntrain: images"},
        "Line 1 of .* is no line of YOLO segmentation",
    ),
    "yolo images": ({"data.yaml": "names: [cup]\ntrain: images"}, "is YOLO segmentation, but no image lies"),
    "yolo names": ({"data.yaml": "names: 3\ntrain: images"}, "is YOLO segmentation, but its 'names'"),
    "no class list": ({"images/a.png": None, "masks/a.png": None}, "holds semantic maps, but no list of classes"),
    "panoptic PNG": (
        {"a.png": None, "p.json": {"images": [IMAGE], "categories": [{**CUP, "isthing": 1}],
                                   "annotations": [{"image_id": 0, "file_name": "z.png", "segments_info": []}]}},
        "is COCO panoptic JSON, but its PNG files are not found",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_what_was_seen(name: str, tmp_path: Path) -> None:
    files, sentence = REFUSED[name]
    source = lay(tmp_path / "in", files)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        convert(Options(root=tmp_path / "out", source=source))
    text = str(caught.value)
    assert re.search(sentence if ".*" in sentence else re.escape(sentence), text), text
    assert "\n" not in text
    assert not (tmp_path / "out").exists()


def test_archives_missing_sources_and_wrong_formats(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"a\.zip is an archive: unpack it"):
        convert(Options(root=tmp_path / "out", source=tmp_path / "a.zip"))
    with pytest.raises(FileNotFoundError, match=r"There is no .*nowhere"):
        convert(Options(root=tmp_path / "out", source=tmp_path / "nowhere"))
    source = coco(tmp_path / "in")
    with pytest.raises(ValueError, match="is not in the format labelme: it holds COCO instances JSON"):
        convert(Options(root=tmp_path / "out", source=source, format="labelme"))
    with pytest.raises(ValueError, match="--stuff names cap, but the annotations have no such class: there is cup"):
        convert(Options(root=tmp_path / "out", source=source, stuff=("cap",)))


def test_the_result_replaces_nobody_elses_files(tmp_path: Path) -> None:
    source = coco(tmp_path / "in")
    with pytest.raises(ValueError, match="is the source itself or around it"):
        convert(Options(root=source, source=source))
    foreign.coco_panoptic(tmp_path / "own", foreign.synthetic(2))
    (tmp_path / "own/annotations/panoptic_mine.json").rename(tmp_path / "own/annotations/panoptic_train.json")
    with pytest.raises(ValueError, match="holds annotations of another origin"):
        convert(Options(root=tmp_path / "own", source=source))
    convert(Options(root=tmp_path / "out", source=source))
    with pytest.raises(ValueError, match=r"was made from .*in: choose another --root"):
        convert(Options(root=tmp_path / "out", source=coco(tmp_path / "other")))


def test_an_annotation_file_alone_with_pictures_elsewhere(tmp_path: Path) -> None:
    source = coco(tmp_path / "in")
    (source / "images").rename(tmp_path / "photos")
    written = convert(Options(root=tmp_path / "out", source=source / "coco.json", images=tmp_path / "photos"))
    assert sum(written.image_counts.values()) == 2


# Looking at the result


def test_check_finds_what_was_broken_later(labelme: Path, tmp_path: Path) -> None:
    options = Options(root=tmp_path / "out", source=labelme)
    convert(options)
    victim = next((options.root / "train").iterdir())
    (options.root / "val" / victim.name).write_bytes(victim.read_bytes())
    png = next((options.root / "annotations/panoptic_val").iterdir())
    png.write_bytes(png.read_bytes()[:50])
    file = options.root / "annotations/panoptic_val.json"
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = "other"
    file.write_text(json.dumps(content))
    text = "\n".join(map(str, check(options)))
    assert f"{png}: is damaged" in text
    assert "has other classes than training" in text
    assert "is the same image as" in text


def test_preview_draws_and_warns(labelme: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    convert(Options(root=root, source=labelme))
    text = preview(root, 4, size=33, queries=2)
    assert "fewer than 10 training segments" in text
    assert "have fewer than 64 pixels at 33²" in text
    assert "more than the number of queries, 2" in text
    with Image.open(root / "preview.png") as image:
        assert image.width > 3 * 480
    found = statistics(root, size=2000)
    assert not any("pixels at" in sentence for sentence in warnings(found))
    assert sum(found.image_counts.values()) == 6


@pytest.mark.long
def test_help_answers_at_once() -> None:
    code = "import sys; sys.argv = ['prepare_own.py', '--help']; import runpy\n"
    code += "try: runpy.run_path('scripts/prepare_own.py', run_name='__main__')\n"
    code += "except SystemExit: print(sorted({'torch', 'hydra', 'lightning', 'numpy', 'cv2'} & set(sys.modules)))"
    result = run_python("-c", code)
    assert "--things" in result.stdout
    assert result.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--root"),
        (["--root", "a"], "give the SOURCE"),
        (["x", "--root", "a", "--check"], "leave out the SOURCE"),
        (["x", "--root", "a", "--val", "20"], "between 0 and 1"),
        (["x", "--root", "a", "--format", "kitti"], "--format kitti is unknown"),
        (["x", "--root", "a", "--stuff", "a,b", "--things", "b"], "b cannot be both"),
        (["x", "--root", "a", "--min-area", "0"], "--min-area starts at 1"),
        (["x", "--root", "a", "--link", "--copy"], "not allowed with"),
    ],
)
def test_contradictions_are_refused(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse("", arguments)
    assert sentence in capsys.readouterr().err


def test_a_full_command_line() -> None:
    options = parse("", ["x", "--root", "a", "--stuff", "sky, road", "--val", ".3", "--format", "datumaro:kitti"])
    assert (options.stuff, options.val, options.link) == (("sky", "road"), 0.3, False)

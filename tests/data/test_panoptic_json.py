"""Other people's JSON: read as meant, or refused in one sentence that names file, entry and remedy."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kmax.categories import load_categories
from kmax.data import CocoPanoptic

VALID: dict[str, Any] = {
    "info": {"year": 2020},
    "images": [{"id": n, "file_name": f"{n}.png", "height": 2, "width": 3} for n in (1, 2)],
    "annotations": [
        {
            "image_id": n,
            "file_name": f"{n}.png",
            "segments_info": [
                {"id": 1, "category_id": 7, "iscrowd": 0, "area": 3, "bbox": [0, 0, 3, 1]},
                {"id": 2, "category_id": 3, "iscrowd": 0, "area": 3, "bbox": [0, 1, 3, 1]},
            ],
        }
        for n in (1, 2)
    ],
    "categories": [
        {"id": 7, "name": "cat", "isthing": 1, "color": [1, 2, 3]},
        {"id": 3, "name": "grass", "isthing": 0, "supercategory": "plant"},
    ],
}
ODD: tuple[object, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    3,
    7,
    1.5,
    1.0,
    float("nan"),
    2**32,
    2**70,
    "",
    "1",
    "cat",
    "x" * 300,
    [],
    [[]],
    {},
)
ODD_TEXT = ("\ud800", "a\0b", "../1.png", "/", ".", "ü\n", "1.png/")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("json")
    (root / "img").mkdir()
    (root / "png").mkdir()
    ids = np.zeros((2, 3, 3), np.uint8)
    ids[0, :, 0], ids[1, :, 0] = 1, 2
    for n in (1, 2):
        Image.new("RGB", (3, 2), (n, n, n)).save(root / f"img/{n}.png")
        Image.fromarray(ids).save(root / f"png/{n}.png")
    return root


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON."""
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


PLACES = list(places(VALID))


def mutate(content: Any, path: tuple[Any, ...], how: str, value: Any = None) -> None:
    """Drop, double or replace the value at a place, if it is still there."""
    try:
        for key in path[:-1]:
            content = content[key]
        if how == "drop":
            del content[path[-1]]
        elif how == "double" and isinstance(content, list):
            content.append(content[path[-1]])
        elif how == "replace":
            content[path[-1]] = value
    except (KeyError, IndexError, TypeError):
        pass


def names(content: dict[str, Any]) -> dict[Any, list[tuple[int, str, bool]]]:
    """By image: id, class and crowd of every segment, straight from the JSON."""
    name_of = {c["id"]: c["name"] for c in content["categories"]}
    return {
        a["image_id"]: [(s["id"], name_of[s["category_id"]], s.get("iscrowd", 0) == 1) for s in a["segments_info"]]
        for a in content["annotations"]
    }


def read(root: Path, text: str, classes: str | None = None) -> dict[Any, list[tuple[int, str, bool]]]:
    """The same as a dataset says it."""
    path = root / "a.json"
    path.write_text(text)
    categories = load_categories(classes or str(path))
    dataset = CocoPanoptic(root / "img", root / "png", path, categories)
    samples = [dataset[n] for n in range(len(dataset))]
    return {s.image_id: [(g.id, categories.names[g.label], g.crowd) for g in s.segments] for s in samples}


def outcome(root: Path, content: Any) -> str:
    """Read what was mutated: the right result ("") or one sentence. Whatever else happens is an error."""
    try:
        found = read(root, json.dumps(content))
    except (ValueError, FileNotFoundError) as error:
        sentence = str(error)
        assert "\n" not in sentence
        assert str(root) in sentence or "There is no file /:" in sentence
        assert len(sentence) < 600
        return sentence
    assert found == names(content)
    return ""


def test_the_valid_file_is_read(root: Path) -> None:
    assert outcome(root, VALID) == ""
    assert names(VALID)[2] == [(1, "cat", False), (2, "grass", False)]


@pytest.mark.long
@pytest.mark.parametrize("key", [None, "info", "images", "annotations", "categories"])
def test_every_single_mutation_is_read_or_refused(root: Path, key: str | None) -> None:
    """All values of a list, each dropped, doubled and replaced by every odd value: some 1,200 files."""
    chosen = [path for path in PLACES if (path[0] == key and len(path) > 1) or (key is None and len(path) == 1)]
    refused = 0
    for path in chosen:
        for how, values in (("drop", (None,)), ("double", (None,)), ("replace", (*ODD, *ODD_TEXT))):
            for value in values:
                content = copy.deepcopy(VALID)
                mutate(content, path, how, value)
                refused += outcome(root, content) != ""
    assert refused > 20 or key == "info"


MUTATION = st.tuples(
    st.sampled_from(PLACES), st.sampled_from(("drop", "double", "replace")), st.sampled_from((*ODD, *ODD_TEXT))
)


@pytest.mark.long
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MUTATION, min_size=2, max_size=4))
def test_several_mutations_are_read_or_refused(root: Path, mutations: list[tuple[Any, str, Any]]) -> None:
    content = copy.deepcopy(VALID)
    for path, how, value in mutations:
        mutate(content, path, how, copy.deepcopy(value))
    outcome(root, content)


@pytest.mark.long
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(json.dumps(VALID)) - 1), st.text(max_size=4))
def test_damaged_text_is_refused(root: Path, place: int, text: str) -> None:
    """Characters in the middle of the file; what is still the same JSON is read."""
    whole = json.dumps(VALID)
    changed = whole[:place] + text + whole[place + 1 :]
    try:
        content = json.loads(changed)
    except ValueError:
        with pytest.raises(ValueError, match=r"a\.json is not valid JSON|an object has the key"):
            read(root, changed)
    else:
        if len(list(places(content))) == len(PLACES):  # no key vanished by having become another's twin
            outcome(root, content)


def change(key: str, entry: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        content[key][entry].update(values)

    return apply


DETECTION = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "segmentation": [[0, 0, 9, 0, 9, 9]]}]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda d: d.update(annotations=DETECTION), r"is not panoptic but COCO instances JSON: convert it with"),
        (
            lambda d: d.update(annotations=[{"image_id": 1, "caption": "a cat"}]),
            r"is not panoptic but COCO captions: convert",
        ),
        (lambda d: d.pop("annotations"), r"not panoptic but COCO JSON without annotations, such as a list"),
        (lambda d: d.update(annotations=None), r"not panoptic but COCO JSON without annotations"),
        (change("images", 0, file_name=1), r"images\[0\]\.file_name is 1, but must be a text of one line"),
        (lambda d: d["images"][1].pop("file_name"), r"images\[1\] has no 'file_name'; it has \"id\", \"height\""),
        (change("images", 0, id="1"), r"annotation 1\.png belongs to no image .*, whose ids are of another type"),
        (
            lambda d: d["annotations"][0].update(pan_seg_file_name=d["annotations"][0].pop("file_name")),
            r"notation of detectron2 \(pan_seg_file_name\)",
        ),
        (
            change("annotations", 1, segments_info=None),
            r"annotations\[1\] \(2\.png\)\.segments_info is null, .* a list",
        ),
        (
            lambda d: d["annotations"][0]["segments_info"][1].update(id="2"),
            r"annotations\[0\] \(1\.png\)\.segments_info\[1\]\.id is \"2\", but must be an integer in 1 …",
        ),
        (
            lambda d: d["annotations"][1]["segments_info"][0].update(category_id=2**32),
            r"annotations\[1\] \(2\.png\)\.segments_info\[0\]\.category_id is 4294967296, but must be an integer",
        ),
        (
            lambda d: d["annotations"][1]["segments_info"][0].update(iscrowd="no"),
            r"\.iscrowd is \"no\", but must be 0, 1, true or false",
        ),
        (change("categories", 1, isthing=2), r"categories\[1\]\.isthing is 2, but must be 0, 1, true or false"),
        (change("categories", 1, isthing="0"), r"categories\[1\]\.isthing is \"0\", but must be"),
        (change("categories", 1, name="cat"), r"categories\[0\] and categories\[1\] repeat a name, \"cat\""),
        (change("categories", 1, id=7), r"categories\[0\] and categories\[1\] repeat an id, 7"),
        (
            change("categories", 1, color=[0.5, 1.0, 0.0]),
            r"\.color is \[0\.5, 1\.0, 0\.0\], but must be three integers",
        ),
        (change("categories", 1, color=[255]), r"categories\[1\]\.color is \[255\]"),
        (change("categories", 1, color="teal"), r"categories\[1\]\.color is \"teal\", but must be .* like #ff8800"),
    ],
)
def test_the_sentence_names_entry_and_remedy(root: Path, damage: Callable[[Any], Any], sentence: str) -> None:
    content = copy.deepcopy(VALID)
    damage(content)
    with pytest.raises(ValueError, match=sentence):
        read(root, json.dumps(content))


def test_instances_are_recognized_where_classes_are_read(root: Path) -> None:
    """A detection file as the only file: its categories do not say which are things."""
    content = {**VALID, "annotations": DETECTION, "categories": [{"id": 1, "name": "cat"}]}
    with pytest.raises(
        ValueError, match=r"no panoptic JSON, since a category lacks 'isthing' \(categories\[0\].*prepare_own\.py"
    ):
        read(root, json.dumps(content))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_of_other_editors_are_read(root: Path, encoding: str) -> None:
    content = copy.deepcopy(VALID)
    content["categories"][0]["name"] = "Kätzchen"
    path = root / "encoded.json"
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    categories = load_categories(str(path))
    assert categories.names == ("Kätzchen", "grass")
    assert len(CocoPanoptic(root / "img", root / "png", path, categories)) == 2


def test_another_encoding_and_a_key_twice_are_refused(root: Path) -> None:
    path = root / "encoded.json"
    path.write_bytes(json.dumps(VALID).replace("cat", "k\xe4t").encode("latin-1"))
    with pytest.raises(ValueError, match=r"not valid JSON .* save it as UTF-8"):
        load_categories(str(path))
    with pytest.raises(ValueError, match=r'has the key "image_id" twice'):
        read(root, json.dumps(VALID).replace('"image_id": 1', '"image_id": 1, "image_id": 2', 1))


@pytest.mark.parametrize(
    ("color", "expected"), [("#ff8800", (255, 136, 0)), ("f80", (255, 136, 0)), ("#FF880080", (255, 136, 0))]
)
def test_hexadecimal_colors_are_read(root: Path, color: str, expected: tuple[int, ...]) -> None:
    content = copy.deepcopy(VALID)
    content["categories"][0]["color"] = color
    (root / "a.json").write_text(json.dumps(content))
    assert load_categories(str(root / "a.json")).classes[0].color == expected


def test_only_the_list_at_the_top_is_the_classes(root: Path) -> None:
    content = copy.deepcopy(VALID)
    content["images"][0]["categories"] = [{"id": 3, "name": "nested", "isthing": 1}]
    assert outcome(root, content) == ""
    assert load_categories(str(root / "a.json")).names == ("cat", "grass")


@pytest.fixture
def classes(root: Path) -> str:
    """The classes of a training split: cat 7, grass 3."""
    path = root / "train.json"
    path.write_text(json.dumps(VALID))
    return str(path)


def renumbered(**ids: int) -> dict[str, Any]:
    """A second split: its classes by name, used in the order of `ids`."""
    content = copy.deepcopy(VALID)
    content["categories"] = [
        {"id": i, "name": name, "isthing": int(name != "grass")} for name, i in sorted(ids.items(), reverse=True)
    ]
    for annotation in content["annotations"]:
        for segment, number in zip(annotation["segments_info"], ids.values(), strict=False):
            segment["category_id"] = number
    return content


@pytest.mark.parametrize("ids", [{"cat": 7, "grass": 3}, {"cat": 3, "grass": 7}, {"cat": 1, "grass": 0, "dog": 3}])
def test_a_split_that_numbers_its_classes_otherwise_is_read_by_name(
    root: Path, classes: str, ids: dict[str, int]
) -> None:
    found = read(root, json.dumps(renumbered(**ids)), classes)
    assert found[1] == [(1, "cat", False), (2, "grass", False)]


@pytest.mark.parametrize("ids", [{"dog": 7, "grass": 3}, {"dog": 3, "grass": 7}, {"dog": 1, "cat": 2}])
def test_a_split_with_a_class_of_its_own_is_refused(root: Path, classes: str, ids: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"a\.json: its class 'dog' \(category \d\) is not among the 2"):
        read(root, json.dumps(renumbered(**ids)), classes)


def test_a_class_that_is_stuff_in_one_split_only_is_refused(root: Path, classes: str) -> None:
    content = copy.deepcopy(VALID)
    content["categories"][1]["isthing"] = 1
    with pytest.raises(ValueError, match="its class 'grass' is a thing, but stuff among the classes"):
        read(root, json.dumps(content), classes)


def test_a_list_of_classes_may_rename_them(root: Path) -> None:
    """As docs/custom_data.md promises: names, order and colors of a file of one's own."""
    path = root / "mine.json"
    own = [{**c, "name": c["name"].upper(), "color": "#102030"} for c in reversed(VALID["categories"])]
    path.write_text(json.dumps({"name": "mine", "classes": own}))
    assert read(root, json.dumps(VALID), str(path))[1] == [(1, "CAT", False), (2, "GRASS", False)]
    assert load_categories(str(path)).names == ("GRASS", "CAT")


def test_a_folder_where_a_file_is_meant_is_named(root: Path) -> None:
    content = copy.deepcopy(VALID)
    content["images"][0]["file_name"] = "sub"
    (root / "img/sub").mkdir(exist_ok=True)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*sub"):
        read(root, json.dumps(content))
    shutil.rmtree(root / "img/sub")

"""A file in which one thing was changed ends in a result or in one sentence, never in a traceback from the depths."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kmax.data.convert.check import check
from kmax.data.convert.options import Options
from kmax.data.convert.own import convert
from kmax.data.convert.prepared import SPLITS, annotation_file
from small_sources import SQUARE, H, W, coco, picture

VALUES: list[object] = [None, True, -1, 0, 3.7, 1e30, 2**40, "", "x", "1", [], [1], [[]], {}, {"a": 1}]
RLE = {"size": [H, W], "counts": [0, 100, H * W - 100]}
COCO = {
    "images": [{"id": n, "file_name": f"{c}.png", "height": H, "width": W} for n, c in enumerate("abc")],
    "annotations": [
        {"id": 0, "image_id": 0, "category_id": 0, "segmentation": [SQUARE], "iscrowd": 0},
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": RLE, "iscrowd": 0, "attributes": {"occluded": True}},
    ],
    "categories": [{"id": n, "name": name, "supercategory": "none"} for n, name in enumerate(("cup", "lid"))],
}
SHAPES = [
    {"label": "cup", "points": [[5, 5], [20, 5], [20, 30]], "group_id": 1, "shape_type": "polygon", "flags": {}},
    {"label": "lid", "points": [[5, 5], [20, 5]], "group_id": None, "shape_type": "circle", "flags": {}},
    {"label": "lid", "points": [[5, 5], [20, 9]], "group_id": None, "shape_type": "rectangle", "flags": {}},
]
LABELME = {"version": "5", "shapes": SHAPES, "imagePath": "a.png", "imageData": None, "imageHeight": H, "imageWidth": W}


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to every value inside a JSON."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    return [p for key in keys for p in ((*path, key), *places(content[key], (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn, original: dict[str, Any]) -> dict[str, Any]:
    """A copy with one value dropped or replaced."""
    content = copy.deepcopy(original)
    *way, last = draw(st.sampled_from(places(content)))
    holder: Any = content
    for key in way:
        holder = holder[key]
    if draw(st.booleans()):
        holder[last] = draw(st.sampled_from(VALUES))
    else:
        del holder[last]
    return content


def ends_well(source: Path) -> None:
    """Either a refusal in one line that leaves no annotations, or a folder that passes every check and holds what the
    report says."""
    options = Options(root=source / "out", source=source, val=0.5)
    files = [annotation_file(options.root, split) for split in SPLITS]
    written, sentence = None, ""
    try:
        written = convert(options)
    except (ValueError, FileNotFoundError) as error:
        sentence = str(error)
    if written is None:
        assert sentence
        assert "\n" not in sentence
        assert not any(file.exists() for file in files)
        return
    assert [str(finding) for finding in check(options) if not finding.is_note] == []
    contents = [json.loads(file.read_text()) for file in files]
    assert sum(len(content["images"]) for content in contents) == sum(written.image_counts.values()) >= 2
    segments = [s for content in contents for a in content["annotations"] for s in a["segments_info"]]
    assert len(segments) == sum(count for by_class in written.segments.values() for count in by_class.values())
    assert all(segment["area"] > 0 for segment in segments)


COMMON = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.slow
@COMMON
@given(mutated(COCO))
def test_coco(content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        coco(Path(folder), "abc")
        (Path(folder) / "coco.json").write_text(json.dumps(content))
        ends_well(Path(folder))


@pytest.mark.slow
@COMMON
@given(mutated(LABELME))
def test_labelme(content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in "abc":
            picture(Path(folder) / f"{name}.png")
            other = content if name == "a" else {**LABELME, "imagePath": f"{name}.png"}
            (Path(folder) / f"{name}.json").write_text(json.dumps(other))
        ends_well(Path(folder))

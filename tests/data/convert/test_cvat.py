"""CVAT's XML: order, groups, other shapes."""

from __future__ import annotations

import json
from pathlib import Path

from small_sources import H, W, picture, prepare


def cvat(folder: Path, shapes: str, image: str = "") -> Path:
    for name in ("a", "b"):
        picture(folder / "images" / f"{name}.png")
    meta = "<meta><task><labels><label><name>cup</name><color>#102030</color></label></labels></task></meta>"
    text = f"<annotations><version>1.1</version>{meta}"
    text += f'<image id="0" name="a.png" width="{W}" height="{H}" {image}>{shapes}</image>'
    text += f'<image id="1" name="b.png" width="{W}" height="{H}"></image></annotations>'
    (folder / "annotations.xml").write_text(text)
    return folder


def polygon(points: str, **attributes: object) -> str:
    more = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    return f'<polygon label="cup" {more} points="{points}"></polygon>'


def test_cvat_z_order_groups_ellipses_and_boxes(tmp_path: Path) -> None:
    shapes = [
        '<polygon label="lid" z_order="2" points="10,10;20,10;20,20;10,20"/>',
        polygon("5,5;40,5;40,30;5,30", z_order=1, group_id=4),
        polygon("50,5;55,5;55,10;50,10", z_order=1, group_id=4),
        '<ellipse label="lid" cx="50" cy="30" rx="8" ry="3" rotation="90" z_order="0"/>',
        '<box label="cup" xtl="1" ytl="1" xbr="9" ybr="9"/>',
        '<polyline label="cup" points="1,1;2,2"/>',
        "<tag label='cup'/>",
    ]
    written, names, segments = prepare(cvat(tmp_path / "in", "".join(shapes)))
    assert names["a"][15, 15] == "lid"
    assert segments["a"].count("cup") == 1
    assert names["a"][36, 50] == "lid"  # the ellipse stands upright
    assert names["a"][30, 56] == "background"
    assert written.left_out["box, which is no mask"] == written.left_out["polyline, which is no area"] == 1


def test_cvat_subsets_are_splits_and_colors_are_kept(tmp_path: Path) -> None:
    folder = cvat(tmp_path / "in", polygon("10,10;20,10;20,20;10,20"), 'subset="Validation"')
    text = (folder / "annotations.xml").read_text().replace('name="b.png"', 'name="b.png" subset="Train"')
    (folder / "annotations.xml").write_text(text)
    prepare(folder)
    content = json.loads((tmp_path / "in-out/annotations/panoptic_val.json").read_text())
    assert [image["id"] for image in content["images"]] == ["a"]
    assert content["categories"][0]["color"] == [16, 32, 48]

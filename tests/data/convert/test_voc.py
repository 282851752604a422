"""Pascal VOC as CVAT exports it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from small_sources import H, W, picture, prepare


def test_voc_as_cvat_exports_it(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a", "b"):
        picture(folder / "JPEGImages" / f"{name}.png")
        for kind, color in (("SegmentationClass", (10, 20, 30)), ("SegmentationObject", (128, 0, 0))):
            pixels = np.zeros((H, W, 3), np.uint8)
            pixels[10:20, 10:20] = color
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"{name}.png")
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncup:10,20,30::\n")
    _, names, segments = prepare(folder)
    assert (names["a"] == "cup").sum() == 100
    assert sorted(segments["a"]) == ["background", "cup"]

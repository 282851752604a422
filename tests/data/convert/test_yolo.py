"""YOLO: boxes among polygons, empty images, paths that lead elsewhere."""

from __future__ import annotations

from pathlib import Path

from small_sources import SQUARE, H, W, picture, prepare


def test_yolo_of_label_studio_with_boxes_and_an_empty_picture(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a", "b", "c"):
        picture(folder / "images" / f"{name}.png")
    (folder / "labels").mkdir()
    square = " ".join(str(n / (W, H)[k % 2]) for k, n in enumerate(SQUARE))
    (folder / "labels" / "a.txt").write_text(f"1 {square}\n0 0.5 0.5 0.1 0.1\n\n")
    (folder / "labels" / "b.txt").write_text("")
    (folder / "classes.txt").write_text("plate\ncup\n")
    (folder / "notes.json").write_text('{"categories": [], "info": {}}')
    written, names, _ = prepare(folder)
    assert (names["a"] == "cup").sum() == 100
    assert written.left_out["box, which is no mask"] == 1
    assert (names["b"] == "background").all()
    assert (names["c"] == "background").all()


def test_yolo_names_by_number_lists_of_paths_and_one_folder_for_both_splits(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a", "b", "c"):
        picture(folder / "images" / f"{name}.png")
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("7 0.1 0.1 0.5 0.1 0.5 0.5")
    (folder / "data.yaml").write_text("path: /somebody/elses\ntrain: images\nval: images\nnames: {7: cup}\n")
    written, _, _ = prepare(folder)
    assert sum(written.image_counts.values()) == 3
    (folder / "train.txt").write_text("./images/a.png\n./images/b.png\n")
    (folder / "val.txt").write_text("/somebody/elses/images/c.png\n")
    (folder / "data.yaml").write_text("path: .\ntrain: train.txt\nval: [val.txt]\nnames: {7: cup}\n")
    written, _, _ = prepare(folder)
    assert dict(written.image_counts) == {"train": 2, "val": 1}

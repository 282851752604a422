"""Films of training: a frame per validation, cut from panels as training writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kmax.visualization import cluster_color
from kmax.visualization.film import PanelFile, film_frames, find_panels, write_film
from scripts.film import film, main
from small_run import OVERRIDES, one_thread, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with panels of two images after 2, 4, 6 and 8 steps."""
    folder = tmp_path_factory.mktemp("film")
    panels = (
        "+callbacks.drawn._target_=kmax.callbacks.Panels",
        f"+callbacks.drawn.folder={folder}/panels",
        "+callbacks.drawn.images=2",
    )
    with one_thread():
        run(folder, *panels, "trainer.val_every_steps=2", base=OVERRIDES)
    return folder


@pytest.mark.long
def test_a_run_becomes_a_film(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = find_panels(folder)
    steps = {name: [panel.step for panel in panels] for name, panels in found.items()}
    assert steps == {"0": [2, 4, 6, 8], "1": [2, 4, 6, 8]}
    main([str(folder), "--image", "1"])
    assert "image 1, steps 2 to 8, 4 frames" in capsys.readouterr().out
    with Image.open(folder / "panels/film-1.gif") as image:
        frames = getattr(image, "n_frames", 1)
    assert frames == 4


@pytest.mark.long
def test_frames_hold_the_pictures_of_their_panel(folder: Path) -> None:
    panels = find_panels(folder)["0"]
    colors = {cluster_color(query) for query in range(128)}
    for panel, frame in zip(panels, film_frames(panels, ["cluster map"]), strict=True):
        whole = np.asarray(Image.open(panel.path).convert("RGB"))
        inside = frame[100:300, 100:300].reshape(-1, 3)
        shown = set(map(tuple, np.unique(inside, axis=0).tolist()))
        assert shown <= colors  # a cluster map and nothing else
        assert shown <= set(map(tuple, np.unique(whole.reshape(-1, 3), axis=0).tolist()))
    lines = [frame[-40:] for frame in film_frames(panels)]
    assert (lines[0] != lines[1]).any()
    assert (lines[1] != lines[2]).any()


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_every_format_has_every_frame(suffix: str, tmp_path: Path) -> None:
    frames = [np.full((40, 60, 3), shade, np.uint8) for shade in (0, 120, 250)]
    path = tmp_path / f"film{suffix}"
    if suffix == ".mp4":
        av = pytest.importorskip("av")
        write_film(frames, path, 0.25)
        with av.open(str(path)) as container:
            shown = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
    else:
        write_film(frames, path, 0.25)
        shown = []
        with Image.open(path) as image:
            for number in range(image.n_frames):  # type: ignore[attr-defined]
                image.seek(number)
                shown.append(np.asarray(image.convert("RGB")).mean())
    np.testing.assert_allclose(shown, [0, 120, 250], atol=4)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.long
def test_what_cannot_be_is_named(folder: Path, tmp_path: Path) -> None:
    show = ["image"]
    with pytest.raises(FileNotFoundError, match=r"no panels in .*: give the folder of a run"):
        find_panels(tmp_path)
    with pytest.raises(ValueError, match="no panels of image 7: there are those of 0, 1"):
        film(folder, "7", show, None, 0.5)
    with pytest.raises(ValueError, match=r"no picture heat: choose from image, ground truth"):
        film(folder, None, ["heat"], None, 0.5)
    with pytest.raises(ValueError, match=r"film\.avi: choose a name that ends in \.gif"):
        film(folder, None, show, tmp_path / "film.avi", 0.5)
    with pytest.raises(ValueError, match="--seconds 0 must be greater"):
        film(folder, None, show, None, 0)
    Image.new("RGB", (50, 20)).save(tmp_path / "step0000001-x.png")
    with pytest.raises(ValueError, match=r"step0000001-x\.png is damaged, or not a panel"):
        list(film_frames([PanelFile(1, tmp_path / "step0000001-x.png")]))
    with pytest.raises(SystemExit, match="error: There are no panels"):
        main([str(tmp_path / "none")])

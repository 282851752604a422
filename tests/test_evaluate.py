"""evaluate.py as a user calls it: on one and on two processes, with options over those of the checkpoint."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
from conftest import run_python
from kmax.categories import load_categories
from kmax.config.build import build_trainer
from kmax.config.compose import compose_config, read_options
from kmax.config.evaluation import evaluation_options
from kmax.config.options import EvaluateOptions, TrainOptions
from kmax.config.sentences import sentence_of
from kmax.config.trained import load_trained
from kmax.data import ShapesDataset
from kmax.data.datamodule import PanopticDataModule
from kmax.data.evaluation import StridedSampler
from kmax.data.options import DatasetOptions
from kmax.metrics import Report

LOOSE = ("thing_threshold=0", "stuff_threshold=0", "overlap=0", "pixel_threshold=0.02")  # an untrained model says a lot
OPTIONS = tuple(f"inference.{option}" for option in LOOSE)
GALLERY = ("gallery=true", "gallery_images=3")
ONE_CORE: dict[str, Any] = {"OMP_NUM_THREADS": "1"}


def run(checkpoint: Path, folder: Path, *options: str) -> tuple[dict, str]:
    arguments = [f"ckpt={checkpoint}", f"hydra.run.dir={folder}", "strategy.num_workers=0", *options]
    result = run_python("evaluate.py", *arguments, **ONE_CORE)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads((folder / "metrics.json").read_text()), result.stdout


@pytest.fixture(scope="module")
def one_process(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str, Path]:
    folder = tmp_path_factory.mktemp("one")
    return *run(tiny_checkpoint, folder, "dataset.val.length=7", *GALLERY, *OPTIONS), folder


def test_one_table_and_two_files(one_process: tuple[dict, str, Path]) -> None:
    metrics, printed, folder = one_process
    assert f"PQ {metrics['all']['pq']:.2f}" in printed
    for title in ("PQ", "SQ", "RQ", "mIoU", "AP", "AP50", "boundary", "pixel accuracy", "AP small"):
        assert title in printed
    assert metrics["all"]["miou"] > 0
    assert metrics["all"]["tp"] + metrics["all"]["fp"] >= 3
    assert metrics["inference"]["thing_threshold"] == 0
    assert metrics["inference"]["stuff_threshold"] == 0
    assert [row["name"] for row in metrics["per_class"]][:2] == ["circle", "square"]
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [row["name"] for row in rows] == ["all", "things", "stuff", *(row["name"] for row in metrics["per_class"])]
    assert float(rows[0]["miou"]) == metrics["all"]["miou"]
    assert not [f for f in folder.iterdir() if "-metrics" in f.name]  # nothing half-written
    for chart in ("classes", "confusion"):
        assert len(np.unique(np.asarray(Image.open(folder / f"{chart}.png")).reshape(-1, 3), axis=0)) > 5


def test_the_gallery_shows_the_worst_images(one_process: tuple[dict, str, Path]) -> None:
    _, printed, folder = one_process
    assert f"worst images · {folder / 'gallery.html'}" in printed
    page = (folder / "gallery.html").read_text()
    assert page.count('<th scope="row"') == 3
    assert "3 of 7 images" in page
    assert not [f for f in folder.iterdir() if f.suffix == ".part"]


def test_charts_leave_out_classes_that_do_not_occur(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[list[str]]] = {}

    def bars(values: dict[str, float], *_: object) -> np.ndarray:
        drawn["classes"] = [list(values)]
        return np.zeros((1, 1, 3), np.uint8)

    def confusion(counts: np.ndarray, rows: list[str], _: str, __: object, columns: list[str]) -> np.ndarray:
        assert counts.shape == (len(rows), len(columns))
        drawn["confusion"] = [rows, columns]
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(evaluate, "draw_bars", bars)
    monkeypatch.setattr(evaluate, "draw_confusion", confusion)
    categories = load_categories("shapes")
    rows = [{"name": name, "pq": 0.0, "tp": 0, "fp": 0, "fn": 0} for name in categories.names]
    rows[1]["tp"], rows[2]["fp"] = 3, 2  # squares occur, triangles are predicted alone
    counts = np.zeros((categories.num_classes,) * 2, int)
    counts[1, 1], counts[1, 2] = 50, 7
    evaluate.save_charts(Report({}, {}, {}, rows, counts), "pq", categories, tmp_path)
    assert drawn == {"classes": [["square"]], "confusion": [["square"], ["square", "triangle"]]}


def test_two_processes_print_and_save_the_same_digits(
    one_process: tuple[dict, str, Path], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Seven images on two processes: one has four, the other three."""
    two = ("strategy.accelerator=cpu", "strategy.devices=2", "strategy.strategy=ddp", "save_predictions=true", *GALLERY)
    metrics, printed = run(tiny_checkpoint, tmp_path, "dataset.val.length=7", *two, *OPTIONS)
    expected, expected_print, folder = one_process
    assert metrics == expected
    assert (tmp_path / "gallery.html").read_text() == (folder / "gallery.html").read_text()
    table = [line for line in printed.splitlines() if line.split()[:1] in (["all"], ["things"], ["circle"])]
    assert len(table) == 3
    assert all(line in expected_print for line in table)
    written = json.loads((tmp_path / "predictions/panoptic.json").read_text())["annotations"]
    assert sorted(entry["image_id"] for entry in written) == list(range(7))


@pytest.mark.long
def test_test_time_options_and_a_choice_of_metrics(tiny_checkpoint: Path, tmp_path: Path) -> None:
    options = ("inference.flip=true", "inference.scales=[0.75,1,1.25]", "inference.pad=false")
    metrics, printed = run(tiny_checkpoint, tmp_path, *options, "metrics=[miou,pq]", "limit=2")
    assert set(metrics["all"]) == {"pq", "sq", "rq", "tp", "fp", "fn", "miou", "pixel_accuracy"}
    assert metrics["inference"]["scales"] == [0.75, 1.0, 1.25]
    assert metrics["inference"]["overlap"] == 0.8
    assert "AP" not in printed


def merged(checkpoint: Path, *overrides: str) -> TrainOptions:
    config = compose_config(None, f"ckpt={checkpoint}", *overrides, root="evaluate")
    return evaluation_options(load_trained(checkpoint).options, read_options(EvaluateOptions, config))


@pytest.mark.long
def test_some_options_go_over_those_of_the_checkpoint(tiny_checkpoint: Path) -> None:
    options = merged(
        tiny_checkpoint, "inference.overlap=0.5", "inference.alpha=2", "dataset.val.length=3", "inference.flip=on"
    )
    inference = options.inference
    assert (inference.overlap, inference.alpha, inference.flip) == (0.5, 2.0, True)
    assert (inference.thing_threshold, inference.stuff_threshold) == (0.4, 0.4)  # of the shapes
    assert (options.dataset.val["length"], options.dataset.val["seed"]) == (3, 2)
    assert options.trainer.val_metrics == ["pq", "miou", "ap", "boundary_pq"]


@pytest.mark.long
@pytest.mark.parametrize(("override", "dtype"), [("precision=bf16", torch.bfloat16), ("limit=2", torch.float32)])
def test_the_precision_of_an_evaluation_is_its_own(tiny_checkpoint: Path, override: str, dtype: torch.dtype) -> None:
    options = merged(tiny_checkpoint, override)
    trainer = build_trainer(options, callbacks=[], logger=False)
    with trainer.precision_plugin.forward_context():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == dtype


@pytest.mark.long
@pytest.mark.parametrize("devices", [1, 3, 5])
def test_any_number_of_devices_will_do(tiny_checkpoint: Path, devices: int) -> None:
    options = merged(tiny_checkpoint, f"strategy.devices={devices}", "strategy.accelerator=cpu")
    assert options.dataset.batch_size == devices


@pytest.mark.long
@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("dataset.sise=[3,3]", "There is no option dataset.sise: known are name, root"),
        ("dataset.size=[65]", "dataset.size=[65] must be 2 values"),
        ("dataset.inference.flip=true", "write inference.… instead"),
        ("inference.flp=true", "There is no option inference.flp: known are alpha, beta"),
        ("inference.flip=perhaps", "inference.flip=perhaps must be true or false"),
        ("inference.overlap=high", "inference.overlap=high must be a number"),
        ("inference.overlap=2", "inference.overlap=2.0 must be at most 1"),
        ("inference.scales=[a]", "inference.scales=a must be a number"),
        ("metrics=[pq,mIoU]", "metrics=[pq,mIoU] must be some of pq, miou"),
        ("limit=0", "limit=0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_named(tiny_checkpoint: Path, override: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        merged(tiny_checkpoint, override)


def test_a_limit_counts_images() -> None:
    datamodule = PanopticDataModule(
        lambda: ShapesDataset(9), lambda: ShapesDataset(9), DatasetOptions(size=(65, 65)), 1
    )
    evaluate.use_first_images(datamodule, 4)
    assert len(datamodule.val()) == 4


def test_more_devices_than_images_are_refused() -> None:
    assert [list(StridedSampler(7, rank, 2)) for rank in (0, 1)] == [[0, 2, 4, 6], [1, 3, 5]]
    with pytest.raises(
        ValueError, match=r"3 image\(s\) cannot be shared by 4 devices: set the number of devices to 3"
    ) as caught:
        StridedSampler(3, 0, 4)
    assert "the number of devices (strategy.devices) to 3" in sentence_of(caught.value)


@pytest.mark.parametrize("name", ["cat [/x]", "[red]", "道路", "a\x1b[2Jb"])
def test_names_of_classes_are_printed_as_they_are(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    values = {"pq": 1.0, "sq": 2.0, "rq": 3.0, "tp": 1, "fp": 0, "fn": 0}
    report = Report(all=values, things=values, stuff=values, per_class=[{"name": name, **values}])
    evaluate.print_table(report)
    assert name.replace("\x1b", "\\x1b") in capsys.readouterr().out
    evaluate.save(report, tmp_path, {})
    assert json.loads((tmp_path / "metrics.json").read_text())["per_class"][0]["name"] == name

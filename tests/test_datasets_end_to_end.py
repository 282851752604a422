"""Each dataset as a user would take it: prepare → --check → train → evaluate, on small trees in official layouts."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import trees
from conftest import ROOT
from kmax.checkpoint.own import read_checkpoint
from kmax.data.prepare import parse, run
from small_run import SMALL_MODEL

SMALL_NETWORK = tuple(word for word in SMALL_MODEL if word.startswith(("backbone.", "model.")))
SMALL = (
    "debug=fast",
    "strategy=cpu",
    "dataset.size=[97,97]",
    "dataset.batch_size=2",
    "loss.samples=64",
    "trainer.enable_progress_bar=false",
)


def coco(root: Path, sample_data: Path) -> None:
    """Six real images, packed as they are downloaded."""
    for split, count in (("train", 4), ("val", 2)):
        source = sample_data / "coco128"
        folder = f"annotations/panoptic_{split}2017"
        content = json.loads((source / f"{folder}.json").read_text())
        content["annotations"] = content["annotations"][:count]
        ids = [annotation["image_id"] for annotation in content["annotations"]]
        content["images"] = [image for image in content["images"] if image["id"] in ids]
        for kind, entries in ((f"{split}2017", content["images"]), (folder, content["annotations"])):
            (root / kind).mkdir(parents=True)
            for entry in entries:
                (root / kind / entry["file_name"]).write_bytes((source / kind / entry["file_name"]).read_bytes())
        (root / f"{folder}.json").write_text(json.dumps(content))
        trees.pack(root, f"{split}2017.zip", f"{split}2017")
        trees.pack(root / "annotations", f"panoptic_{split}2017.zip", f"panoptic_{split}2017")
    trees.pack(root, "panoptic_annotations_trainval2017.zip", "annotations")


def cityscapes(root: Path) -> None:
    trees.cityscapes(root)
    trees.pack(root, "leftImg8bit_trainvaltest.zip", "leftImg8bit")
    trees.pack(root, "gtFine_trainvaltest.zip", "gtFine")


def ade20k(root: Path) -> None:
    trees.ade20k(root)
    trees.pack(root, "ADEChallengeData2016.zip", "images", "annotations", top="ADEChallengeData2016/")
    trees.pack(root, "annotations_instance.tar", "annotations_instance")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script with a command line, in this process."""

    def call(script: str, *arguments: str) -> None:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        monkeypatch.chdir(ROOT)
        runpy.run_path(str(ROOT / script), run_name="__main__")

    return call


@pytest.mark.long
@pytest.mark.parametrize("dataset", ["coco", "cityscapes", "ade20k"])
def test_from_download_to_metric(
    dataset: str, tmp_path: Path, command: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    root, folder = tmp_path / "data", tmp_path / "run"
    root.mkdir()
    if dataset == "coco":
        coco(root, request.getfixturevalue("sample_data"))
    else:
        {"cityscapes": cityscapes, "ade20k": ade20k}[dataset](root)
    arguments = ["--root", str(root), "--workers", "0"]
    assert run(dataset, parse(dataset, "", arguments)) == 0
    assert run(dataset, parse(dataset, "", [*arguments, "--check", "--subset"])) == 0
    command(
        "train.py", "experiment=null", f"dataset={dataset}", f"dataset.root={root}", *SMALL, f"hydra.run.dir={folder}"
    )
    checkpoint = folder / "checkpoints" / "best.ckpt"
    assert read_checkpoint(checkpoint)["kmax_config"]["dataset"]["name"] == dataset
    moved = root.rename(tmp_path / "elsewhere")
    command("evaluate.py", f"ckpt={checkpoint}", f"dataset.root={moved}", "strategy=cpu", f"hydra.run.dir={folder}/e")
    metrics = json.loads((folder / "e" / "metrics.json").read_text())
    assert 0 <= metrics["all"]["pq"] <= 100


def test_own_data_is_trained_on_and_fine_tuned(
    tmp_path: Path, command: Callable[..., None], tiny_checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    root = trees.coco_format(tmp_path / "data")
    options = (
        f"dataset.root={root}",
        f"init_from={tiny_checkpoint}",
        *SMALL_NETWORK,
        "model.num_queries=16",
        *SMALL,
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    command("train.py", "experiment=null", "dataset=coco_format", *options)
    said = capsys.readouterr().out
    assert "initialized anew: model.transformer_decoder.layers.0.predictor.class_logits, " in said
    carried = read_checkpoint(tmp_path / "run/checkpoints/best.ckpt")["kmax_categories"]
    assert [c["name"] for c in carried["classes"]][:1] == ["my noise"] or carried["classes"][0]["name"].startswith(
        "my "
    )

"""Published checkpoints become ours with one command, and nothing but the file is needed from then on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import SMALL, small_model, write_detectron2
from tensorflow_files import write_checkpoint

import golden_tools
import trees
from conftest import run_python
from kmax.callbacks import checkpoint_to_resume
from kmax.categories import Categories, load_categories
from kmax.checkpoint.deeplab2 import class_order
from kmax.checkpoint.own import read_checkpoint
from kmax.checkpoint.recognize import recognize
from kmax.config.build import build_datamodule, build_module, build_trainer
from kmax.config.compose import compose_config, run_options
from kmax.config.convert import nearest_options
from kmax.config.options import TrainOptions
from kmax.config.sentences import sentence_of
from kmax.config.trained import initialize_from, load_trained
from kmax.data.prepare import Options, prepare
from kmax.model import KMaXDeepLab
from kmax.options import to_plain
from kmax.predict.predictor import Predictor
from scripts import convert_weights as script


def convert(*arguments: Any) -> None:
    script.run(script.parse([str(a) for a in arguments]))


@pytest.fixture(scope="module")
def small() -> KMaXDeepLab:
    return small_model()


@pytest.fixture(scope="module")
def converted(small: KMaXDeepLab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Cityscapes model that came in as a published `.pkl`."""
    folder = tmp_path_factory.mktemp("converted")
    convert(write_detectron2(folder / "published.pkl", small), folder / "ours.safetensors")
    return folder / "ours.safetensors"


@pytest.mark.long
@pytest.mark.parametrize("name", golden_tools.CONFIGURATIONS)
def test_every_published_pytorch_configuration_is_recognized(name: str) -> None:
    backbone, num_classes, _ = golden_tools.CONFIGURATIONS[name]
    found = recognize({key: torch.empty(shape, device="meta") for key, shape in golden_tools.entries(name)})
    assert (found.family, found.backbone) == ("detectron2", backbone)
    assert found.categories == load_categories(name.partition("_")[0])
    assert found.categories.num_classes == num_classes
    check_configuration(found, backbone)


@pytest.mark.long
@pytest.mark.parametrize("name", golden_tools.TENSORFLOW)
def test_every_published_tensorflow_configuration_is_recognized(name: str) -> None:
    backbone, dataset, _ = golden_tools.TENSORFLOW[name]
    found = recognize({key: torch.empty(shape, device="meta") for key, shape in golden_tools.variables(name)})
    assert (found.family, found.backbone, found.categories.name) == ("deeplab2", backbone, dataset)
    options = check_configuration(found, backbone)
    assert options.dataset.target_stride == (2 if dataset == "cityscapes" else 4)


@pytest.mark.long
@pytest.mark.parametrize("variant", golden_tools.MAX_DEEPLAB)
def test_max_deeplab_is_recognized_and_its_size_is_asked_for(variant: str) -> None:
    shapes = golden_tools.max_variables(variant)
    found = recognize({key: torch.empty(shape, device="meta") for key, shape in shapes})
    assert (found.family, found.backbone, found.categories.name) == ("deeplab2", f"max_deeplab_{variant}", "coco")
    assert "MaX-DeepLab, 128 slots" in str(found)
    own = golden_tools.max_model(variant, "meta").state_dict()
    assert found.state.keys() == own.keys()
    small = nearest_options(found)
    large = nearest_options(found, size=(1025, 1025))
    assert small.name == f"coco_max_deeplab_{variant}_{641 if variant == 's' else 1025}"
    assert large.name == f"coco_max_deeplab_{variant}_1025"
    assert (large.inference.thing_area, large.inference.stuff_area) == (256, 4096)
    assert (large.model.dim, large.model.hidden_dim, large.model.heads) == (own["memory"].shape[0], 256, 8)


@pytest.mark.long
def test_a_max_deeplab_checkpoint_becomes_ours(tmp_path: Path, capsys: Any) -> None:
    golden = golden_tools.load("max/forward_coco_max_deeplab_s")
    seeded = golden_tools.seeded_max_variables("s", float(golden["input/gamma_scale"]))
    convert(write_checkpoint(tmp_path / "ckpt-100000", seeded), tmp_path / "ours.safetensors")
    report = capsys.readouterr().out
    assert "took: the input is 641×641, which nothing in the file tells" in report
    model = load_trained(tmp_path / "ours.safetensors").model
    images = golden_tools.recipe.seeded_normal(str(golden["input/name"]), golden["input/shape"])
    with torch.no_grad():
        (prediction,) = model(torch.from_numpy(images).float(), coarse=False).predictions
    golden_tools.compare(prediction.mask_logits, golden, "pixel_space_mask_logits", 1e-4)
    predictor = Predictor.from_checkpoint(tmp_path / "ours.safetensors", device="cpu")
    assert predictor.size == (641, 641)
    assert (predictor.inference.method, predictor.inference.thing_area) == ("pixel_wise", 100)


def check_configuration(found: Any, backbone: str) -> TrainOptions:
    """What is recognized is the experiment of that name, spelled out."""
    options = nearest_options(found)
    name = f"{found.categories.name}_{backbone}"
    assert options.name == name
    same = run_options(compose_config(name, "~callbacks", "logger=none", f"model.family={found.family}"))
    for key, value in found.model.items():
        expected = to_plain(same.model)[key]
        assert value == (expected[: len(value)] if isinstance(value, list) else expected), key
    assert options.inference == same.inference
    return options


@pytest.mark.long
def test_the_report_names_what_was_recognized(small: KMaXDeepLab, tmp_path: Path, capsys: Any) -> None:
    convert(write_detectron2(tmp_path / "published.pth", small, optimizer={"lr": 1}), tmp_path / "ours.ckpt")
    report = capsys.readouterr().out
    for word in ("detectron2", "resnet50", "19 classes (cityscapes)", "12 queries", "5 pixel-decoder stages", "plain"):
        assert word in report
    assert read_checkpoint(tmp_path / "ours.ckpt")["kmax_config"]["model"]["widths"] == SMALL["widths"]
    assert {f.name for f in tmp_path.iterdir()} == {"published.pth", "ours.ckpt"}


@pytest.mark.long
def test_a_converted_checkpoint_predicts_what_the_model_predicts(small: KMaXDeepLab, converted: Path) -> None:
    trained = load_trained(converted)
    images = torch.randn(1, 3, 65, 129)
    with torch.no_grad():
        ours, theirs = trained.model(images).predictions[-1], small(images).predictions[-1]
    assert torch.equal(ours.class_logits, theirs.class_logits)
    assert torch.equal(ours.mask_logits, theirs.mask_logits)
    predictor = Predictor.from_checkpoint(converted, device="cpu")
    assert predictor.categories.names[0] == "road"
    assert predictor.inference.thing_threshold == 0.5
    predictor.size = (65, 129)
    assert predictor(np.zeros((40, 80, 3), np.uint8)).segment_map.shape == (40, 80)


@pytest.mark.long
def test_evaluation_needs_nothing_but_the_file(converted: Path, tmp_path: Path) -> None:
    root = trees.cityscapes(tmp_path / "data", train=1)
    prepare("cityscapes", Options(root))
    result = run_python(
        "evaluate.py", f"ckpt={converted}", f"dataset.root={root}", "+dataset.size=[257,513]", "strategy=cpu",
        f"hydra.run.dir={tmp_path / 'out'}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert 0 <= metrics["all"]["pq"] <= 100


@pytest.mark.long
def test_there_and_back_through_files_gives_identical_bytes(
    small: KMaXDeepLab, converted: Path, tmp_path: Path
) -> None:
    for name in ("back.pth", "back.pkl"):
        convert(converted, tmp_path / name, "--to-detectron2")
        convert(tmp_path / name, tmp_path / "again.ckpt")
        again = read_checkpoint(tmp_path / "again.ckpt")["state_dict"]
        assert again.keys() == {f"model.{key}" for key in small.state_dict()}
        for key, value in small.state_dict().items():
            assert again[f"model.{key}"].numpy().tobytes() == value.numpy().tobytes(), key


@pytest.mark.long
def test_a_tensorflow_checkpoint_becomes_ours(tmp_path: Path) -> None:
    name = "cityscapes_r50"
    seeded = {key: golden_tools.recipe_tf.seeded_tensor_tf(key, shape) for key, shape in golden_tools.variables(name)}
    convert(write_checkpoint(tmp_path / "ckpt-60000", seeded), tmp_path / "ours.safetensors")
    is_thing = load_categories("cityscapes").is_thing
    golden = golden_tools.load(f"tf/forward_{name}")
    images = golden_tools.recipe.seeded_normal(str(golden["input/name"]), golden["input/shape"])
    trained = load_trained(tmp_path / "ours.safetensors")
    with torch.no_grad():
        prediction = trained.model(torch.from_numpy(images).float(), coarse=False).predictions[-1]
    theirs = prediction.class_logits[..., class_order(is_thing)]
    golden_tools.compare(theirs, golden, "transformer_class_logits", 1e-4)
    golden_tools.compare(prediction.mask_logits, golden, "pixel_space_mask_logits", 1e-4)
    assert trained.options.dataset.target_stride == 2
    with pytest.raises(ValueError, match="is of the deeplab2 family"):
        convert(tmp_path / "ours.safetensors", tmp_path / "no.pth", "--to-detectron2")


@pytest.mark.long
def test_stripping_leaves_weights_and_configuration(tiny_checkpoint: Path, tmp_path: Path) -> None:
    whole = read_checkpoint(tiny_checkpoint)
    for name in ("small.ckpt", "small.safetensors"):
        convert(tiny_checkpoint, tmp_path / name, "--strip")
        small = read_checkpoint(tmp_path / name)
        assert "optimizer_states" not in small
        assert small["kmax_config"] == whole["kmax_config"]
        assert Categories.from_dict(small["kmax_categories"]) == Categories.from_dict(whole["kmax_categories"])
        assert small["state_dict"].keys() == whole["state_dict"].keys()
        for key, value in whole["state_dict"].items():
            assert torch.equal(small["state_dict"][key], value), key
        assert (tmp_path / name).stat().st_size < 0.5 * tiny_checkpoint.stat().st_size
        assert Predictor.from_checkpoint(tmp_path / name, device="cpu").categories.name == "shapes"


@pytest.mark.long
def test_a_converted_checkpoint_fine_tunes_on_other_classes(converted: Path) -> None:
    """Cityscapes' 19 classes → the shapes: the class layers start anew, everything learns."""
    sizes = [f"model.{key}={json.dumps(value)}" for key, value in SMALL.items()]
    options = run_options(
        compose_config(
            "shapes", "~callbacks", "logger=none", "strategy=cpu", "backbone=resnet50", "backbone.pretrained=false",
            "model=kmax_cityscapes", *sizes, "dataset.batch_size=2", "dataset.train.length=2", "loss.samples=64",
            "optimizer.steps=2",
        )
    )  # fmt: skip
    module = build_module(options, pretrained=False)
    fresh = initialize_from(module, options, converted)
    assert all("class_logits" in name or "semantic_head" in name for name in fresh)
    assert len(fresh) == sum(SMALL["layers"]) + 2
    before = {name: value.clone() for name, value in module.state_dict().items()}
    weights = read_checkpoint(converted)["state_dict"]
    key = "model.transformer_decoder.centres"
    assert torch.equal(before[key], weights[key])
    trainer = build_trainer(options, limit_val_batches=0, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(module, build_datamodule(options))
    assert trainer.global_step == 2
    assert not torch.equal(module.state_dict()[key], before[key])
    assert all(value.isfinite().all() for value in module.state_dict().values())


@pytest.mark.long
def test_classes_of_another_dataset_are_named_by_a_file(tmp_path: Path, capsys: Any) -> None:
    classes = load_categories("coco").to_dict()["classes"][:7]
    (tmp_path / "mine.json").write_text(json.dumps({"name": "mine", "classes": classes}))
    source = write_detectron2(tmp_path / "mine.pkl", small_model(7))
    with pytest.raises(ValueError, match=r"7 classes, which tells no dataset .*--categories"):
        convert(source, tmp_path / "ours.ckpt")
    convert(source, tmp_path / "ours.ckpt", "--categories", tmp_path / "mine.json")
    assert "7 classes (mine)" in capsys.readouterr().out
    convert(source, tmp_path / "ours.ckpt", "--categories", tmp_path / "mine.json", "--size", 65, 97)
    trained = load_trained(tmp_path / "ours.ckpt")
    assert trained.options.dataset.size == (65, 97)
    assert trained.categories.names == load_categories("coco").names[:7]
    with pytest.raises(ValueError, match="19 classes, but mine has 7"):
        recognize(meta(golden_tools.entries("cityscapes_r50")), trained.categories)


def meta(entries: list[tuple[str, list[int]]]) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in entries}


def mixed_up() -> dict[str, torch.Tensor]:
    """COCO's checkpoint with a class head of ADE20K in one of the layers."""
    entries = meta(golden_tools.entries("coco_r50"))
    key = "sem_seg_head.predictor._kmax_transformer_layers.0._predcitor._transformer_class_head.conv.bias"
    return {**entries, key: torch.empty(151, device="meta")}


def without(start: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in meta(golden_tools.entries("coco_r50")).items() if not key.startswith(start)}


@pytest.mark.long
@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        (lambda: {"fc.weight": torch.zeros(1)}, r"no kMaX- or MaX-DeepLab .*the pretrained weights of the backbone"),
        (lambda: {**meta(golden_tools.entries("coco_r50")), "x": torch.zeros(1)}, "first is 'x'"),
        (mixed_up, r"1 of another shape \(first: transformer_decoder.layers.0.*mixed up"),
        (lambda: without("backbone.res4.0.conv2"), r"6 missing \(first: backbone.body.layer3.0"),
        (lambda: without("sem_seg_head.pixel_decoder"), "lacks parts of a kMaX- or MaX-DeepLab"),
        (lambda: without("backbone"), r"lacks parts .* a ResNet with \(0, 0, 0, 0\) blocks"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_nothing_is_written(
    entries: Any, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmax.config.convert.read_entries", lambda path: entries())
    with pytest.raises(ValueError, match=sentence) as caught:
        convert("somewhere.pth", tmp_path / "ours.ckpt")
    assert "\n" not in str(caught.value)
    assert ("pretrained" in sentence) == ("(backbone.pretrained)" in sentence_of(caught.value))
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_wrong_uses_get_one_sentence(tiny_checkpoint: Path, converted: Path, tmp_path: Path) -> None:
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((tiny_checkpoint, tmp_path / "x.ckpt"), "checkpoint of kmax already: --strip or --to-detectron2"),
        ((tiny_checkpoint, tmp_path / "x.bin", "--strip"), r"should end in \.ckpt or \.safetensors"),
        ((converted, tmp_path / "x.ckpt", "--to-detectron2"), r"should end in \.pth or \.pkl"),
    ]
    for arguments, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            convert(*arguments)
    published = converted.with_name("published.pkl")
    for reader in (read_checkpoint, load_trained):
        with pytest.raises(ValueError, match=r"scripts/convert_weights\.py"):
            reader(published)
    with pytest.raises(ValueError, match="holds weights only, no run to go on with"):
        checkpoint_to_resume(str(converted), None, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_hostile_file_ends_the_command_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "f.pkl").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "mark").encode() + b"'\ntR.")
    result = run_python("scripts/convert_weights.py", str(tmp_path / "f.pkl"), str(tmp_path / "ours.ckpt"))
    assert result.returncode == 1
    assert "asks for os.system" in result.stderr
    assert "Traceback" not in result.stderr
    assert [f.name for f in tmp_path.iterdir()] == ["f.pkl"]

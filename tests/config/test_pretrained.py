"""Weights by name reach every place that takes a checkpoint; COCONut's two ResNets are told apart, never guessed."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import small_model, write_detectron2
from PIL import Image
from tensorflow_files import write_checkpoint
from web import File, Web, serving

import golden_tools
from conftest import SMALL_RUN, run_python
from kmax.checkpoint.own import SOURCE_KEY, read_checkpoint
from kmax.checkpoint.own import write_checkpoint as write_ours
from kmax.checkpoint.published import Published, published
from kmax.config import variants
from kmax.config.compose import compose_config, run_options
from kmax.config.convert import Told, convert
from kmax.config.pretrained import checkpoint_path
from kmax.config.trained import load_trained
from kmax.config.variants import AmbiguousError, batch_of, statistics_distance
from kmax.data import ShapesDataset
from kmax.model import KMaXDeepLab, build_backbone
from kmax.model.options import BackboneOptions
from kmax.predict.predictor import Predictor
from scripts import convert_weights as script
from small_run import SMALL_MODEL

COCO: dict[str, Any] = {"widths": [32, 16, 8, 8], "blocks": [1, 1, 1, 1], "stem_stage": False, "semantic_head": "none"}


TINY = (*SMALL_MODEL, "loss.samples=64")
"""The options of `tiny_checkpoint`."""


def coconut(resnet: str) -> KMaXDeepLab:
    """A small COCO model of the published PyTorch code, with either ResNet-50."""
    ours = small_model(133, **COCO)
    backbone = build_backbone("resnet50", family=resnet)
    backbone.load_state_dict(ours.backbone.state_dict())
    ours.backbone = backbone.eval()
    return ours


def command(*arguments: Any) -> None:
    script.run(script.parse([str(a) for a in arguments]))


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KMAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def serve(web: Web, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Published:
    """A file of the model zoo, at home."""
    entry = published()[name]
    path = f"/{name}{entry.suffix}"
    web.files[path] = File(content)
    here = replace(entry, urls=(f"{web.url}{path}",))
    for module in ("kmax.config.pretrained", "kmax.checkpoint.imagenet", "kmax.checkpoint.published"):
        monkeypatch.setattr(f"{module}.published", lambda: {name: here})
    return here


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.fromarray(ShapesDataset(9, seed=5)[number].image).save(tmp_path / f"photos/{number}.png")
    return tmp_path / "photos"


@pytest.mark.long
@pytest.mark.parametrize("resnet", variants.VARIANTS)
def test_either_resnet_of_coconut_is_computed_as_it_was_trained(resnet: str, tmp_path: Path, capsys: Any) -> None:
    model = coconut(resnet)
    source = write_detectron2(tmp_path / "kmax_panoptic_r50_coconut_s.pth", model)
    command(source, tmp_path / "ours.safetensors", "--resnet", resnet)
    assert f"took: the ResNet is {resnet}'s: as told" in capsys.readouterr().out
    trained = load_trained(tmp_path / "ours.safetensors")
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        ours, theirs = trained.model(images).predictions[-1], model(images).predictions[-1]
    assert torch.equal(ours.class_logits, theirs.class_logits)
    assert torch.equal(ours.mask_logits, theirs.mask_logits)
    assert trained.options.model.family == "detectron2"
    command(tmp_path / "ours.safetensors", tmp_path / "back.pth", "--to-detectron2")


@pytest.mark.long
def test_names_that_cannot_tell_are_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    source = write_detectron2(tmp_path / "kmax_panoptic_r50_coconut_s.pth", coconut("detectron2"))
    target = tmp_path / "ours.ckpt"
    with pytest.raises(AmbiguousError, match=r"--resnet detectron2 or --resnet deeplab2, or with --images FOLDER") as e:
        command(source, target)
    assert "\n" not in str(e.value)
    assert not target.exists()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("rich.prompt.Prompt.ask", lambda *_, **__: "deeplab2")
    command(source, target)
    assert read_checkpoint(target)["kmax_config"]["backbone"]["family"] == "deeplab2"
    plain = source.rename(tmp_path / "kmax_r50.pth")
    capsys.readouterr()
    command(plain, target)
    assert "took: the ResNet is detectron2's: as in all published files but COCONut's" in capsys.readouterr().out
    assert read_checkpoint(target)["kmax_config"]["backbone"]["family"] is None


@pytest.mark.long
@pytest.mark.parametrize("resnet", variants.VARIANTS)
def test_statistics_on_images_tell_the_resnet(
    resnet: str, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(variants, "SIZE", (193, 193))
    torch.manual_seed(1)
    model = coconut(resnet)
    for module in model.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # keep what the one batch shows
    (tmp_path / "seen").mkdir()
    for number in range(3, 9):  # images that the comparison does not see
        Image.fromarray(ShapesDataset(9, seed=5)[number].image).save(tmp_path / f"seen/{number}.png")
    with torch.no_grad():
        model.backbone.train()(batch_of(tmp_path / "seen"))
    model.eval()
    source = write_detectron2(tmp_path / "coconut_s.pth", model)
    command(source, tmp_path / "ours.ckpt", "--images", photos)
    assert f"took: the ResNet is {resnet}'s: its batch-norm statistics are nearest" in capsys.readouterr().out


def test_the_distance_is_that_of_its_definition() -> None:
    norm = torch.nn.BatchNorm2d(2).eval()
    norm.running_mean = torch.tensor([1.0, 2.0])
    norm.running_var = torch.tensor([4.0, 9.0])
    images = torch.tensor([[[[3.0]], [[2.0]]], [[[3.0]], [[8.0]]]])  # means 3 and 5
    expected = ((3 - 1) / (4 + norm.eps) ** 0.5 + (5 - 2) / (9 + norm.eps) ** 0.5) / 2
    assert statistics_distance(norm, [norm], images) == pytest.approx(expected)


@pytest.mark.long
def test_a_choice_that_is_none_is_refused(tmp_path: Path, photos: Path) -> None:
    source = write_detectron2(tmp_path / "city.pth", small_model())
    for told in (Told(resnet="deeplab2"), Told(images=photos)):
        with pytest.raises(ValueError, match="its names leave no choice of a ResNet"):
            convert(source, tmp_path / "ours.ckpt", told)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"There is no image in .*empty to compare on"):
        batch_of(tmp_path / "empty")


@pytest.mark.long
def test_a_name_of_the_zoo_is_downloaded_converted_and_used(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_detectron2(tmp_path / "published.pth", small_model(133, **COCO))
    serve(web, "coco_resnet50", source.read_bytes(), monkeypatch)
    path = checkpoint_path("coco_resnet50")
    assert path == tmp_path / "cache/coco_resnet50.safetensors"
    assert read_checkpoint(path)[SOURCE_KEY]["published"]["PQ"] == 53.3
    web.files.clear()
    predictor = Predictor.from_pretrained("coco_resnet50", device="cpu")
    assert predictor.categories.name == "coco"
    assert load_trained("coco_resnet50").options.name == "coco_resnet50"
    command("--download", "coco_resnet50", tmp_path / "mine.ckpt")
    assert read_checkpoint(tmp_path / "mine.ckpt")[SOURCE_KEY]["name"] == "coco_resnet50"


@pytest.mark.long
def test_coconut_by_name_is_asked_about_once(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    source = write_detectron2(tmp_path / "published.pth", coconut("deeplab2"))
    serve(web, "coconut_b_resnet50", source.read_bytes(), monkeypatch)
    with pytest.raises(ValueError, match=r"--download coconut_b_resnet50 with --resnet detectron2 or"):
        checkpoint_path("coconut_b_resnet50")
    command("--download", "coconut_b_resnet50", "--resnet", "deeplab2")
    assert "took: the ResNet is deeplab2's: as told" in capsys.readouterr().out
    assert len(web.files["/coconut_b_resnet50.pth"].asked) == 1, "the download was kept"
    options = load_trained("coconut_b_resnet50").options
    assert options.backbone.family == "deeplab2"
    assert options.dataset.name == "coconut_b"
    assert options.dataset.val["annotation_file"] == "data/coconut/relabeled_coco_val.json"
    assert options.inference.stuff_threshold == 0.2


@pytest.mark.slow
def test_imagenet_weights_by_name_start_a_backbone(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = {
        key: golden_tools.recipe_tf.seeded_tensor_tf(key, shape)
        for key, shape in golden_tools.variables("coco_axial_r50")
        if key.startswith("encoder/")
    }
    (tmp_path / "tf").mkdir()
    write_checkpoint(tmp_path / "tf/ckpt-1", seeded)
    with tarfile.open(tmp_path / "tf.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(tmp_path / "tf", arcname="maxs")
    serve(web, "imagenet_max_s_tf", (tmp_path / "tf.tar.gz").read_bytes(), monkeypatch)
    backbone = build_backbone(BackboneOptions("max_s", pretrained="imagenet_max_s_tf"), "deeplab2")
    theirs = torch.from_numpy(seeded["encoder/_stem/_conv1_bn_act/_conv/kernel"])
    assert torch.equal(backbone.state_dict()["stem.0.conv.weight"], theirs.permute(3, 2, 0, 1))
    with pytest.raises(ValueError, match=r"backbone\.name=max_s backbone\.pretrained=imagenet_max_s_tf"):
        checkpoint_path("imagenet_max_s_tf")
    serve(web, "coco_resnet50", b"", monkeypatch)
    with pytest.raises(ValueError, match="a whole model, not a backbone: start from it with init_from=coco_resnet50"):
        build_backbone(BackboneOptions("resnet50", pretrained="coco_resnet50"))


@pytest.mark.long
def test_weights_without_their_configuration_are_named_and_completed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A state dict alone: evaluation and conversion say the same, and conversion makes a checkpoint of it again."""
    state = read_checkpoint(tiny_checkpoint)["state_dict"]
    bare = {name.removeprefix("model."): value for name, value in state.items()}
    for name, content in (("a.pth", state), ("b.pth", bare), ("c.pth", {"state_dict": state})):
        torch.save(content, tmp_path / name)
        for use in (read_checkpoint, lambda path: command(path, tmp_path / "ours.ckpt")):
            with pytest.raises(
                ValueError, match=r"holds weights of kmax without the configuration .*--experiment NAME"
            ):
                use(tmp_path / name)
        command(tmp_path / name, tmp_path / "ours.ckpt", "--experiment", "shapes", *TINY)
        trained = load_trained(tmp_path / "ours.ckpt")
        assert trained.categories.name == "shapes"
        assert all(torch.equal(trained.model.state_dict()[key], value) for key, value in bare.items())
    with pytest.raises(ValueError, match=r"was taken for coco_resnet50, but does not fit it"):
        command(tmp_path / "a.pth", tmp_path / "no.ckpt", "--experiment", "coco_resnet50")
    with pytest.raises(FileNotFoundError, match=r"a name of the model zoo: did you mean coco_resnet50"):
        read_checkpoint("coco_resnet_50")


def test_what_exists_goes_before_a_name(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checkpoint_path("anything.ckpt") == Path("anything.ckpt")
    (tmp_path / "coco_resnet50").write_bytes(tiny_checkpoint.read_bytes())
    assert checkpoint_path("coco_resnet50") == Path("coco_resnet50")


@pytest.mark.parametrize("name", ["coconut_s", "coconut_b"])
def test_the_relabeled_data_are_composed(name: str) -> None:
    overrides = (f"dataset={name}", "dataset.root=here", "~callbacks", "logger=none")
    options = run_options(compose_config("coco_resnet50", *overrides))
    dataset = options.dataset
    assert (dataset.name, dataset.categories) == (name, "coco")
    assert dataset.train["annotation_file"] == f"here/{name}.json"
    assert dataset.train["annotation_folder"] == f"here/{name}"
    assert dataset.val["annotation_folder"] == "here/relabeled_coco_val"
    assert options.inference.stuff_threshold == 0.2


@pytest.mark.slow
def test_names_on_the_command_line(tiny_checkpoint: Path, cache: Path, tmp_path: Path) -> None:
    """Training, evaluation and prediction with what lies in the cache under a name."""
    cache.mkdir()
    write_ours(cache / "coco_resnet50.safetensors", read_checkpoint(tiny_checkpoint))
    environment: dict[str, Any] = {"KMAX_CACHE": str(cache)}
    ckpt = "ckpt=coco_resnet50"
    training = [*SMALL_RUN, *TINY, "init_from=coco_resnet50", f"hydra.run.dir={tmp_path}/t"]
    result = run_python("train.py", *training, **environment)
    assert result.returncode == 0, result.stderr[-3000:]
    options = ["dataset.val.length=2", "strategy=cpu", f"hydra.run.dir={tmp_path}/e"]
    result = run_python("evaluate.py", ckpt, *options, **environment)
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads((tmp_path / "e/metrics.json").read_text())["all"]["pq"] >= 0
    Image.fromarray(ShapesDataset(1)[0].image).save(tmp_path / "a.png")
    arguments = [ckpt, f"input={tmp_path}/a.png", f"output={tmp_path}/p", "device=cpu"]
    result = run_python("scripts/predict.py", *arguments, **environment)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "p").is_dir()


@pytest.mark.long
def test_without_a_network_a_command_says_where_to_get_the_file(cache: Path) -> None:
    proxy: dict[str, Any] = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "", "KMAX_CACHE": str(cache)}
    result = run_python("scripts/convert_weights.py", "--download", "coco_resnet50", **proxy)
    assert result.returncode == 1
    first = result.stderr.splitlines()[0]
    assert first.startswith("error: coco_resnet50 cannot be downloaded (")
    assert "get https://drive.google.com/file/d/" in first
    assert first.endswith(f"elsewhere and put it at {cache}/coco_resnet50.pth.")
    assert "Traceback" not in result.stderr

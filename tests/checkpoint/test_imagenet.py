"""ImageNet weights from a local file, whoever wrote it; without a network the way out is named at once."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import golden_tools
from kmax.checkpoint.detectron2 import their_name
from kmax.checkpoint.imagenet import load_imagenet
from kmax.model import Backbone, build_backbone, downloads
from kmax.model.options import BackboneOptions


@pytest.fixture(scope="module")
def resnet() -> dict[str, torch.Tensor]:
    """timm's own names, with a classifier."""
    torch.manual_seed(1)
    return timm.create_model("resnet50").state_dict()


@pytest.fixture(scope="module")
def convnext() -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return timm.create_model("convnext_tiny", num_classes=3).state_dict()


def published(body: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under the names of the published Detectron2-style and original ConvNeXt files, without the classifier."""
    names = {name: their_name(f"backbone.body.{name}") for name in body}
    return {str(theirs).removeprefix("backbone."): body[name] for name, theirs in names.items() if theirs}


def check(backbone: Backbone, body: dict[str, torch.Tensor]) -> None:
    state = backbone.state_dict()
    assert state
    for name, value in state.items():
        assert torch.equal(value, body[name.removeprefix("body.")]), name


@pytest.mark.long
def test_a_detectron2_style_file(resnet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    arrays = {k: v.numpy() for k, v in published(resnet).items() if "num_batches" not in k}
    arrays["stem.fc.weight"] = resnet["fc.weight"].numpy()
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(content))
    for family in ("detectron2", "deeplab2"):
        check(build_backbone(BackboneOptions("resnet50", pretrained=str(tmp_path / "R-50.pkl")), family), resnet)


@pytest.mark.long
def test_an_original_convnext_file(convnext: dict[str, torch.Tensor], tmp_path: Path) -> None:
    original = published(convnext)
    assert {"downsample_layers.0.0.weight", "stages.0.0.dwconv.weight", "stages.3.2.gamma"} <= original.keys()
    head = {"norm.weight": torch.ones(768), "norm.bias": torch.ones(768), "head.weight": torch.ones(3, 768)}
    torch.save({"model": {**original, **head}}, tmp_path / "convnext.pth")
    check(build_backbone(BackboneOptions("convnext_tiny", pretrained=str(tmp_path / "convnext.pth"))), convnext)


@pytest.mark.long
def test_timms_own_files(resnet: dict[str, torch.Tensor], convnext: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(resnet, tmp_path / "resnet.pth")
    check(build_backbone(BackboneOptions("resnet50", pretrained=str(tmp_path / "resnet.pth"))), resnet)
    save_file(convnext, tmp_path / "convnext.safetensors")
    check(build_backbone(BackboneOptions("convnext_tiny", pretrained=str(tmp_path / "convnext.safetensors"))), convnext)
    swin = timm.create_model("swin_tiny_patch4_window7_224").state_dict()
    torch.save(swin, tmp_path / "swin.pth")
    backbone = build_backbone(BackboneOptions("swin_tiny", pretrained=str(tmp_path / "swin.pth")))
    key = "body.patch_embed.proj.weight"
    assert torch.equal(backbone.state_dict()[key], swin["patch_embed.proj.weight"])
    with pytest.raises(ValueError, match="holds no timm weights for swin_tiny"):
        build_backbone(BackboneOptions("swin_tiny", pretrained=str(tmp_path / "resnet.pth")))


@pytest.mark.long
def test_a_tensorflow_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """deeplab2's checkpoint of a MaX-S, with whatever else it holds."""
    variables = {
        key: torch.from_numpy(golden_tools.recipe_tf.seeded_tensor_tf(key, shape))
        for key, shape in golden_tools.variables("coco_axial_r50")
        if key.startswith("encoder/")
    }
    variables["classifier/kernel"] = torch.ones(1)
    monkeypatch.setattr("kmax.checkpoint.imagenet.read_entries", lambda path: variables)
    backbone = build_backbone(BackboneOptions("max_s", pretrained="ckpt-1"), "deeplab2")
    theirs = variables["encoder/_stem/_conv1_bn_act/_conv/kernel"]
    assert torch.equal(backbone.state_dict()["stem.0.conv.weight"], theirs.permute(3, 2, 0, 1))


@pytest.mark.parametrize("variant", golden_tools.MAX_DEEPLAB)
def test_an_encoder_for_max_deeplab(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """deeplab2's ImageNet backbones: the residual blocks, and nothing that reads the slots; layouts are those of S."""
    skipped = ("extra", "transformer", "memory_feature")
    encoder = [
        (name, shape)
        for name, shape in golden_tools.max_variables(variant)
        if name.startswith("encoder/") and not any(word in name for word in skipped)
    ]
    variables = {name: torch.zeros(shape, device="meta") for name, shape in encoder}
    stem = "encoder/_stem/_conv1_bn_act/_conv/kernel" if variant == "s" else "encoder/_stem/_conv/kernel"
    variables |= {stem: torch.randn(dict(encoder)[stem]), "classifier/kernel": torch.ones(1)}
    monkeypatch.setattr("kmax.checkpoint.imagenet.read_entries", lambda path: variables)
    backbone = golden_tools.max_model(variant, "meta").backbone
    loaded: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(backbone, "load_state_dict", loaded.update)
    load_imagenet(backbone, "ckpt-1")
    assert loaded.keys() == backbone.state_dict().keys()
    assert {name: v.shape for name, v in loaded.items()} == {n: v.shape for n, v in backbone.state_dict().items()}
    assert torch.equal(loaded["stem.0.conv.weight"], variables[stem].permute(3, 2, 0, 1))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("resnet50", {"conv1.weight": torch.zeros(64, 3, 7, 7)}, r"do not fit the backbone: \d+ missing"),
        ("resnet50", {"nothing": torch.zeros(1)}, "1 not of this model .first: body.nothing"),
        ("max_s", {"nothing": torch.zeros(1)}, r"do not fit the backbone: \d+ missing"),
    ],
)
def test_another_models_file_is_named(name: str, content: Any, sentence: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "f.pth")
    with pytest.raises(ValueError, match=sentence) as caught:
        build_backbone(BackboneOptions(name, pretrained=str(tmp_path / "f.pth")), "deeplab2")
    assert "pretrained" in str(caught.value)


@pytest.mark.long
def test_a_missing_file_is_named() -> None:
    for name in ("resnet50", "swin_tiny"):
        with pytest.raises(FileNotFoundError, match=r"/nowhere\.pth"):
            build_backbone(BackboneOptions(name, pretrained="/nowhere.pth"))


@pytest.mark.parametrize("name", ["resnet50", "convnext_large.fb_in22k"])
def test_without_a_network_the_file_to_get_and_the_option_are_named(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(downloads, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(downloads.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    repository = re.escape(str(config.hf_hub_id))
    with pytest.raises(ValueError, match=rf"{repository}/.*model\.safetensors .*pretrained=PATH"):
        build_backbone(BackboneOptions(name, pretrained=True))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE"):
        build_backbone(BackboneOptions(name, pretrained=True))


def test_a_network_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing sleeps here for long: the attempt is left behind."""
    import threading

    released = threading.Event()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(downloads, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(downloads, "_open", lambda address: released.wait(20))
    monkeypatch.setattr(downloads, "PATIENCE", 0.05)
    with pytest.raises(ValueError, match="no answer within a second"):
        build_backbone(BackboneOptions("resnet50", pretrained=True))
    released.set()


def test_there_are_no_timm_weights_for_max_s() -> None:
    with pytest.raises(ValueError, match=r"pretrained to false, or to the path"):
        build_backbone(BackboneOptions("max_s", pretrained=True), "deeplab2")
    with pytest.raises(ValueError, match=r"set the family to deeplab2"):
        build_backbone("max_s")

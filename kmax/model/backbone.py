"""Backbones: ResNet, ConvNeXt and MaX-S exactly as published, any other timm model by name.

Letters: B batch, C channels, H×W input size.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kmax.checkpoint.foreign import read_entries
from kmax.checkpoint.imagenet import load_imagenet
from kmax.model.downloads import require_download
from kmax.model.features import STEM, STRIDES, Backbone
from kmax.model.layers import NORM_EPS, NORM_MOMENTUM
from kmax.model.max_s import MaXS
from kmax.model.options import BackboneOptions
from kmax.options import Plain

MAX_S = "max_s"
ALIASES = {"swin_tiny": "swin_tiny_patch4_window7_224", "swin_small": "swin_small_patch4_window7_224"}


class ResNetBackbone(Backbone):
    """A timm ResNet. Family deeplab2: no pool, stage 2 strides instead, features from before the last activation."""

    def __init__(self, body: Any, family: str) -> None:
        super().__init__()
        self.deeplab2 = family == "deeplab2"
        self.body: Any = body
        body.fc = nn.Identity()
        if self.deeplab2:
            _stride_in_first_stage(body)
            for stage in (body.layer1, body.layer2, body.layer3, body.layer4):
                _last_activation(stage[-1])
        self.act = nn.ReLU() if self.deeplab2 else nn.Identity()
        widths = [info["num_chs"] for info in body.feature_info]
        self.channels = {STEM: widths[0], **dict(zip(STRIDES, widths[1:], strict=True))}

    def parts(self) -> list[nn.Module]:
        body = self.body
        return [nn.ModuleList([body.conv1, body.bn1]), body.layer1, body.layer2, body.layer3, body.layer4]

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        body = self.body
        x = body.bn1(body.conv1(images))
        stem = x if self.deeplab2 else body.maxpool(body.act1(x))
        features, x = {STEM: stem}, body.act1(x.clone()) if self.deeplab2 else stem
        for stride, stage in zip(STRIDES, (body.layer1, body.layer2, body.layer3, body.layer4), strict=True):
            features[stride] = self.run(stage, x)
            x = self.act(features[stride])
        return features


def _stride_in_first_stage(body: Any) -> None:
    block = body.layer1[0]
    conv = block.conv2 if hasattr(block, "conv3") else block.conv1
    conv.stride = (2, 2)
    if block.downsample is None:
        raise ValueError("Family deeplab2 needs a ResNet whose first block has a projection shortcut, e.g. resnet50.")
    next(m for m in block.downsample if isinstance(m, nn.Conv2d)).stride = (2, 2)


def _last_activation(block: nn.Module) -> None:
    """Remove the activation after the sum from a residual block."""
    name = "act3" if hasattr(block, "act3") else "act2"
    setattr(block, name, nn.Identity())


class ConvNeXtBackbone(Backbone):
    """A timm ConvNeXt, padded so that sizes 32k+1 fit."""

    def __init__(self, body: Any, family: str) -> None:
        super().__init__()
        self.body: Any = body
        body.norm_pre, body.head = nn.Identity(), nn.Identity()
        if not isinstance(body.stem[0], nn.Conv2d) or body.stem[0].stride != (4, 4):
            raise ValueError("Only ConvNeXt models with a 4×4 patch stem can be used: choose one, e.g. convnext_tiny.")
        self.act = nn.GELU() if family == "deeplab2" else nn.Identity()
        widths = [info["num_chs"] for info in body.feature_info]
        self.channels = {STEM: widths[0], **dict(zip(STRIDES, widths, strict=True))}

    def parts(self) -> list[nn.Module]:
        return [self.body.stem, *self.body.stages]

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        x = self.body.stem(F.pad(images, (1, 2, 1, 2)))
        features = {STEM: x}
        for stride, stage in zip(STRIDES, self.body.stages, strict=True):
            x = features[stride] = self.run(stage, x if stride == STRIDES[0] else F.pad(x, (0, 1, 0, 1)))
        return features


class TimmBackbone(Backbone):
    """Any other timm model with features at strides 4, 8, 16 and 32; has no `stem` feature.

    Models that cut an image into patches get it padded to a multiple of 32, and their features cropped.
    """

    def __init__(self, body: Any, name: str) -> None:
        super().__init__()
        self.body: Any = body
        self.act = nn.Identity()
        info = body.feature_info
        self.channels = dict(zip(STRIDES, info.channels(), strict=True))
        self.pad = False
        if not self._fits():
            self.pad = True
            if not self._fits():
                raise ValueError(
                    f"The timm model {name} does not yield features of sizes H/4 … H/32 at any input size."
                )

    def parts(self) -> list[nn.Module]:
        """The stem is part of the first stage. A stage ends with the module whose output is its feature."""
        info = self.body.feature_info
        ends = [name for name, stride in zip(info.module_name(), info.reduction(), strict=True) if stride in STRIDES]
        stages: list[nn.Module] = [nn.ModuleList()]
        units: list[nn.Module] = []
        for name, unit in _units(self.body, ends):
            units.append(unit)
            if name in (end.replace(".", "_") for end in ends):
                stages.append(nn.ModuleList(units))
                units = []
        return stages if len(stages) == 1 + len(STRIDES) else super().parts()

    def _fits(self) -> bool:
        """Whether the features of a 65×97 image have ⌈65/s⌉ × ⌈97/s⌉ cells at every stride s."""
        parameter = next(self.body.parameters())
        training = self.body.training
        self.body.eval()
        try:
            with torch.no_grad():
                features = self(parameter.new_zeros(1, 3, 65, 97))
        except (RuntimeError, AssertionError, ValueError):
            return False
        finally:
            self.body.train(training)
        expected = {s: (self.channels[s], -(-65 // s), -(-97 // s)) for s in STRIDES}
        return {s: tuple(f.shape[1:]) for s, f in features.items()} == expected

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        height, width = images.shape[-2:]
        if self.pad:
            images = F.pad(images, (0, -width % 32, 0, -height % 32))
        features = dict(zip(STRIDES, self.run(self.body, images), strict=True))
        for stride, x in features.items():
            if x.shape[1] != self.channels[stride] and x.shape[-1] == self.channels[stride]:
                x = x.permute(0, 3, 1, 2).contiguous()  # (B, h, w, C) → (B, C, h, w)
            if self.pad:
                x = x[..., : -(-height // stride), : -(-width // stride)]
            features[stride] = x
        return features


def _units(body: nn.Module, ends: list[str]) -> Iterator[tuple[str, nn.Module]]:
    """Name, with underscores, and module of what a timm feature extractor runs in order: its children, and the
    children of those that contain the end of a stage."""
    for name, child in body.named_children():
        if any(end.startswith(f"{name}.") for end in ends):
            yield from ((f"{name}_{inner}", module) for inner, module in child.named_children())
        else:
            yield name, child


def build_backbone(options: BackboneOptions | str, family: str = "detectron2") -> Backbone:
    """Build a backbone by its timm name, or `max_s`.

    Args:
        options: its options, or its name alone for random weights. `pretrained` may be the path of a file of ImageNet
            weights by timm or torchvision; for ResNet, ConvNeXt and MaX-S also a published Detectron2-style, original
            ConvNeXt or TensorFlow file, or the name of such a TensorFlow file in the model zoo.
        family: which published implementation to reproduce, `detectron2` or `deeplab2`, unless `options.family` says
            so.

    Raises:
        ValueError: no such model, or one that cannot be used; weights that cannot be downloaded.
        FileNotFoundError: no such file of weights.
    """
    if isinstance(options, str):
        options = BackboneOptions(options)
    name, pretrained, family = options.name, options.pretrained, options.family or family
    file = pretrained if isinstance(pretrained, str) else None
    backbone: Backbone
    if name == MAX_S:
        backbone = _max_s(bool(pretrained) and not file, family, options.drop_path)
    else:
        backbone = _timm(ALIASES.get(name, name), pretrained, family, options.drop_path)
    if file and not isinstance(backbone, TimmBackbone):
        load_imagenet(backbone, file)
    backbone.checkpointing = options.checkpointing
    backbone.freeze(options.freeze, options.freeze_norms)
    return backbone


def _max_s(download: bool, family: str, drop_path: float) -> Backbone:
    if family != "deeplab2":
        raise ValueError("The MaX-S backbone exists in the deeplab2 family only: set the family to deeplab2.")
    if download:
        raise ValueError(
            "timm has no weights for MaX-S: set pretrained to false, or to the path of deeplab2's TensorFlow "
            "checkpoint (docs/model_zoo.md)."
        )
    return MaXS(drop_path)


def _timm(name: str, pretrained: bool | str, family: str, drop_path: float) -> Backbone:
    arch = name.split(".")[0]
    if not timm.is_model(arch):
        raise ValueError(
            f"timm knows no model {arch}: a backbone is {MAX_S} or one of the names that timm.list_models() gives."
        )
    download = pretrained is True
    if download:
        require_download(name)
    module = timm.models.model_entrypoint(arch).__module__
    options: Plain = {"pretrained": download, "drop_path_rate": drop_path}
    if module == "timm.models.resnet" and arch.startswith(("resnet", "wide_resnet", "resnext")):
        norm = partial(nn.BatchNorm2d, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        return ResNetBackbone(timm.create_model(name, norm_layer=norm, **options), family)
    if module == "timm.models.convnext":
        return ConvNeXtBackbone(timm.create_model(name, **options), family)
    return TimmBackbone(_feature_model(name, pretrained, drop_path), name)


def _feature_model(name: str, pretrained: bool | str, drop_path: float) -> nn.Module:
    options: Plain = {"drop_path_rate": drop_path} if drop_path else {}
    if name.startswith("swin"):
        options["strict_img_size"] = False
    try:
        body: Any = timm.create_model(name, features_only=True, **options)
        options["out_indices"] = [body.feature_info.reduction().index(stride) for stride in STRIDES]
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"The timm model {name} offers no features at strides 4, 8, 16 and 32 ({str(error).splitlines()[0]}): "
            "choose a hierarchical model, e.g. resnet50, convnext_tiny or swin_tiny."
        ) from error
    if not isinstance(pretrained, str):
        return timm.create_model(name, features_only=True, pretrained=pretrained, **options)
    _check_file(pretrained, body, name)
    overlay = {"file": pretrained}  # timm reads it with weights_only=True
    return timm.create_model(name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay, **options)


def _check_file(path: str, body: nn.Module, name: str) -> None:
    """Make sure that a file of weights can be read and belongs to this model: timm skips names that it does not
    know."""
    given = {entry.replace(".", "_") for entry in read_entries(path)}
    own = [parameter.replace(".", "_") for parameter, _ in body.named_parameters()]
    if sum(parameter in given for parameter in own) < len(own) / 2:
        raise ValueError(f"{path} holds no timm weights for {name}: choose a file that timm wrote for this model.")

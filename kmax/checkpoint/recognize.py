"""Recognize a foreign checkpoint: family, backbone, sizes and dataset, from names and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from kmax.categories import Categories, all_categories
from kmax.checkpoint.deeplab2 import from_deeplab2
from kmax.checkpoint.detectron2 import from_detectron2
from kmax.options import Plain

Shapes = Mapping[str, tuple[int, ...]]

RESNETS = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101", (3, 8, 36, 3): "resnet152"}
"""timm's name by the number of blocks of each stage."""
CONVNEXTS = {(96, 9): "tiny", (96, 27): "small", (128, 27): "base", (192, 27): "large", (256, 27): "xlarge"}
"""Size by the stem's channels and the number of blocks of the third stage."""
MAX_DEEPLAB = "max_deeplab"
_CLASS_HEADS = {
    "detectron2": "sem_seg_head.predictor._predcitor._transformer_class_head.conv.bias",
    "deeplab2": "transformer_class_head/_conv/bias",
}
"""The entry whose length gives the number of classes, by family."""


@dataclass(frozen=True)
class Recognized:
    """A recognized foreign checkpoint.

    `model` are the options of the network that follow from its shapes; `state` are its entries under our names.
    """

    family: str
    backbone: str
    categories: Categories
    model: Plain
    state: dict[str, Tensor]

    def __str__(self) -> str:
        model = self.model
        parts = (
            f"MaX-DeepLab, {model['num_queries']} slots of {model['dim']} channels"
            if model.get("architecture") == MAX_DEEPLAB
            else f"{model['num_queries']} queries, {len(model['widths'])} pixel-decoder stages, "
            f"{sum(model['layers'])} transformer layers"
        )
        return (
            f"family {self.family}, backbone {self.backbone}, {self.categories.num_classes} classes "
            f"({self.categories.name}), {parts}, semantic head {model['semantic_head']}, {len(self.state)} entries"
        )


def recognize(entries: Mapping[str, Tensor], categories: Categories | None = None) -> Recognized:
    """Recognize a foreign checkpoint by its entries.

    Args:
        categories: the classes it was trained on; by default those of the published dataset with that number.

    Raises:
        ValueError: they are no kMaX-DeepLab's, incomplete, mixed up, or of a number of classes that no dataset has.
    """
    family = _family(entries)
    num_classes = len(entries[_CLASS_HEADS[family]]) - 1
    categories = categories or _published(num_classes)
    if categories.num_classes != num_classes:
        raise ValueError(
            f"The checkpoint has {num_classes} classes, but {categories.name} has {categories.num_classes}: "
            "give the categories that it was trained on."
        )
    state = from_detectron2(entries) if family == "detectron2" else from_deeplab2(entries, categories.is_thing)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    try:
        options = _max_options(shapes) if "memory" in shapes else _options(shapes, family)
        return Recognized(family, _backbone(shapes), categories, options, state)
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"The checkpoint lacks parts of a kMaX- or MaX-DeepLab: nothing to tell {error}.") from error


def _family(entries: Mapping[str, Tensor]) -> str:
    for family, head in _CLASS_HEADS.items():
        if head in entries:
            return family
    raise ValueError(
        "This is no kMaX- or MaX-DeepLab of the published kinds: it has no class head "
        f"({', '.join(_CLASS_HEADS.values())}). "
        "A backbone's ImageNet weights go into training as the pretrained weights of the backbone."
    )


def _published(num_classes: int) -> Categories:
    found = [categories for categories in all_categories() if categories.num_classes == num_classes]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{c.name} {c.num_classes}" for c in all_categories())
    raise ValueError(
        f"The checkpoint has {num_classes} classes, which tells no dataset ({known}): "
        "name its classes with --categories FILE.json."
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """The number of different values in the group of `pattern`, over all names that match."""
    return len({match.group(1) for match in map(re.compile(pattern).match, shapes) if match})


def _backbone(shapes: Shapes) -> str:
    if "memory" in shapes:
        return f"max_deeplab_{'s' if 'backbone.stem.2.conv.weight' in shapes else 'l'}"
    if "backbone.stem.0.conv.weight" in shapes:
        return "max_s"
    if "backbone.body.stem.0.weight" in shapes:
        key = shapes["backbone.body.stem.0.weight"][0], _count(shapes, r"backbone\.body\.stages\.2\.blocks\.(\d+)\.")
        if key in CONVNEXTS:
            return f"convnext_{CONVNEXTS[key]}"
        raise ValueError(f"a ConvNeXt with {key[0]} channels and {key[1]} blocks in its third stage")
    blocks = tuple(_count(shapes, rf"backbone\.body\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    if blocks not in RESNETS:
        raise ValueError(f"a ResNet with {blocks} blocks")
    return RESNETS[blocks]


def _options(shapes: Shapes, family: str) -> Plain:
    """The options of kMaX-DeepLab that follow from shapes."""
    stages = range(_count(shapes, r"pixel_decoder\.norms\.(\d+)\."))
    outputs = [shapes[f"pixel_decoder.stages.{i}.0.expand.conv.weight"][0] for i in stages]
    layers = range(_count(shapes, r"transformer_decoder\.layers\.(\d+)\."))
    inputs = [shapes[f"transformer_decoder.layers.{i}.pixel_in.conv.weight"][1] for i in layers]
    dim, num_queries = shapes["transformer_decoder.centres"]
    axial = [f"pixel_decoder.stages.{i}.0.spatial.0.height.logit_norm.weight" for i in stages]
    first = "transformer_decoder.layers.0"
    return {
        "family": family,
        "num_queries": num_queries,
        "widths": [channels // 4 for channels in outputs],
        "blocks": [_count(shapes, rf"pixel_decoder\.stages\.{i}\.(\d+)\.") for i in stages],
        "axial_stages": sum(name in shapes for name in axial),
        "decoder_heads": shapes[axial[0]][0] // 3,
        "stem_stage": len(stages) == 5,
        "layers": [inputs.count(channels) for channels in outputs[:3]],
        "dim": dim,
        "feature_dim": shapes["transformer_decoder.predictor.pixel_feature.conv.weight"][0],
        "ffn_dim": shapes[f"{first}.ffn_in.conv.weight"][0],
        "heads": shapes[f"{first}.self_attention.logit_norm.weight"][0],
        "semantic_head": _semantic_head(shapes),
    }


def _max_options(shapes: Shapes) -> Plain:
    """The options of MaX-DeepLab that follow from shapes."""
    dim, num_queries = shapes["memory"]
    feature_dim, hidden_dim = shapes["predictor.pixel_feature.conv.weight"][:2]
    first = next(name for name in shapes if name.endswith(".ffn_in.conv.weight"))
    return {
        "architecture": MAX_DEEPLAB,
        "family": "deeplab2",
        "num_queries": num_queries,
        "dim": dim,
        "feature_dim": feature_dim,
        "hidden_dim": hidden_dim,
        "ffn_dim": shapes[first][0],
        "heads": shapes[first.replace("ffn_in.conv.weight", "pixel_attention.logit_norm.weight")][0],
        "semantic_head": _semantic_head(shapes),
    }


def _semantic_head(shapes: Shapes) -> str:
    if not any(name.startswith("semantic_head.") for name in shapes):
        return "none"
    return "aspp" if "semantic_head.logits.weight" in shapes else "plain"

"""Files of ImageNet weights from various sources, under the names of a backbone.

Recognized by their names: timm's and torchvision's own, Detectron2-style ResNets (`stem.conv1`, `res2`, …), original
ConvNeXts (`downsample_layers`, `dwconv`), and TensorFlow checkpoints of deeplab2's encoders, MaX-DeepLab's included.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from kmax.checkpoint.deeplab2 import Variables, batch_counters
from kmax.checkpoint.detectron2 import our_name
from kmax.checkpoint.download import fetch_backbone
from kmax.checkpoint.foreign import read_entries
from kmax.checkpoint.names import describe_mismatch
from kmax.checkpoint.published import published

BACKBONE = "backbone."
_CLASSIFIERS = ("fc.", "head.", "norm.", "classifier.", "stem.fc.", "logits/", "classifier/")
"""Prefixes of entries that only classification needs and that are not part of the backbone."""


def load_imagenet(backbone: nn.Module, path: str | Path) -> None:
    """Load ImageNet weights, a file or a name of the model zoo, into a backbone, without the classifier.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, hostile, or of another architecture; the message names what does not fit.
    """
    own = backbone.state_dict()
    if str(path) in published() and not Path(path).exists():
        path = fetch_backbone(published()[str(path)])
    found = _ours(read_entries(path), own)
    # Some files lack the counters of batches, which nothing reads.
    found = {**{name: value for name, value in own.items() if name.endswith("num_batches_tracked")}, **found}
    problem = describe_mismatch(own, found)
    if problem:
        raise ValueError(
            f"The weights in {path} do not fit the backbone: {problem}. "
            "Set the pretrained weights to a file for the backbone's name."
        )
    backbone.load_state_dict(found)


def _ours(entries: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries under the backbone's names."""
    if any(name.startswith("encoder/") for name in entries):
        return _from_tensorflow(entries, dual_path="steps.0.blocks.0.expand.conv.weight" in own)
    if any(name.startswith(("res2.", "downsample_layers.")) for name in entries):
        renamed = {our_name(BACKBONE + name) or name: value for name, value in entries.items()}
        found = {name.removeprefix(BACKBONE): value for name, value in renamed.items()}
    else:
        found = {f"body.{name}": value for name, value in entries.items()}
    unknown = [name for name in found if name not in own]
    classifier = [name for name in unknown if name.removeprefix("body.").startswith(_CLASSIFIERS)]
    return {name: value for name, value in found.items() if name not in classifier}


def _from_tensorflow(variables: Mapping[str, Tensor], dual_path: bool) -> dict[str, Tensor]:
    table, found = Variables.of_encoder(variables, dual_path), {}
    for theirs, value in variables.items():
        ours = table.names.ours(theirs)
        if ours is not None and ours.startswith(BACKBONE):
            found[ours.removeprefix(BACKBONE)] = table.layout(theirs).ours(value).contiguous()
    return {**found, **batch_counters(found)}

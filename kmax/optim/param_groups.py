"""Parameter groups: which parameters have weight decay, and which a smaller rate."""

from __future__ import annotations

from typing import Any

from timm.models import group_parameters
from torch import nn

from kmax.options import Plain

_DECAYING = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    backbone_multiplier: float = 0.1,
    layer_decay: float | None = None,
) -> list[Plain]:
    """Parameter groups for an optimizer, by rule and never by name.

    Only weights of convolutions and linear layers decay; norms, biases, layer scales, position tables and cluster
    centers do not. What belongs to `model.backbone` (where there is one) learns at `backbone_multiplier` × `lr`, and
    with `layer_decay` each of its layers at that multiple of the next one's rate; the last layer keeps the backbone's.
    Every trainable parameter is in one group; groups without a parameter are left out.

    Returns:
        Groups with `params`, `lr`, `weight_decay` and `name`, which a rate monitor shows: "backbone/decay",
        "backbone/no_decay", "decoder/decay", "decoder/no_decay", and with `layer_decay` "backbone/3/decay", ….

    Raises:
        ValueError: `layer_decay` for a backbone whose layers are not known.
    """
    backbone = getattr(model, "backbone", None)
    in_backbone = set(backbone.parameters()) if isinstance(backbone, nn.Module) else set()
    depth = _depths(backbone) if layer_decay is not None and isinstance(backbone, nn.Module) else {}
    last = max(depth.values(), default=0)
    decaying = {
        parameter
        for module in model.modules()
        if isinstance(module, _DECAYING)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim >= 2
    }
    groups: dict[str, Plain] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        part, rate = ("backbone", lr * backbone_multiplier) if parameter in in_backbone else ("decoder", lr)
        if parameter in depth:
            part, rate = f"backbone/{depth[parameter]}", rate * (layer_decay or 1.0) ** (last - depth[parameter])
        decays = parameter in decaying
        name = f"{part}/{'decay' if decays else 'no_decay'}"
        decay = weight_decay if decays else 0.0
        group = groups.setdefault(name, {"params": [], "lr": rate, "weight_decay": decay, "name": name})
        group["params"].append(parameter)
    return [groups[name] for name in sorted(groups, key=_in_order)]


def _depths(backbone: nn.Module) -> dict[nn.Parameter, int]:
    """The layer that each parameter of a backbone belongs to, counted from the image, as timm groups them."""
    body: Any = getattr(backbone, "body", None)
    if body is None or not hasattr(body, "group_matcher"):
        raise ValueError(
            "A rate that decays by layers (layer_decay) needs a timm backbone such as resnet50 or convnext_large: this "
            "one does not tell its layers."
        )
    names: dict[str, int] = group_parameters(body, body.group_matcher(coarse=False), reverse=True)
    return {parameter: names[name] for name, parameter in body.named_parameters() if name in names}


def _in_order(name: str) -> tuple[str, int, str]:
    """Backbone before decoder, layers by number, decaying before not decaying."""
    part, *number, kind = name.split("/")
    return part, int(number[0]) if number else 0, kind

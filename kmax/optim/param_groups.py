"""Which parameters decay, and which learn slowly."""

from __future__ import annotations

from typing import Any

from torch import nn

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
    model: nn.Module, lr: float, weight_decay: float, backbone_multiplier: float = 0.1
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, by rule and never by name.

    Only weights of convolutions and linear layers decay; norms, biases, layer scales, position tables and cluster
    centres do not. What belongs to `model.backbone` (where there is one) learns at `backbone_multiplier` × `lr`.
    Every trainable parameter is in one group; groups without a parameter are left out.

    Returns:
        Groups with `params`, `lr`, `weight_decay` and `name`, which a rate monitor shows: "backbone/decay",
        "backbone/no_decay", "decoder/decay", "decoder/no_decay".
    """
    backbone = getattr(model, "backbone", None)
    in_backbone = set(backbone.parameters()) if isinstance(backbone, nn.Module) else set()
    decaying = {
        parameter
        for module in model.modules()
        if isinstance(module, _DECAYING)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim >= 2
    }
    groups: dict[str, dict[str, Any]] = {
        f"{part}/{kind}": {"params": [], "lr": rate, "weight_decay": decay, "name": f"{part}/{kind}"}
        for part, rate in (("backbone", lr * backbone_multiplier), ("decoder", lr))
        for kind, decay in (("decay", weight_decay), ("no_decay", 0.0))
    }
    for parameter in model.parameters():
        if parameter.requires_grad:
            part = "backbone" if parameter in in_backbone else "decoder"
            groups[f"{part}/{'decay' if parameter in decaying else 'no_decay'}"]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]

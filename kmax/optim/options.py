"""The options of the optimizer. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from kmax.options import REQUIRED, Options, option


@dataclass(frozen=True)
class OptimizerOptions(Options):
    """AdamW with a linear warm-up and polynomial decay; without weight decay it is Adam (MaX-DeepLab)."""

    lr: float = option(REQUIRED, "learning rate of the decoders at the dataset's batch size", above=0)
    weight_decay: float = option(0.05, "weight decay of convolutions and linear layers", at_least=0)
    backbone_multiplier: float = option(0.1, "the backbone learns at this multiple of the rate", at_least=0)
    layer_decay: float | None = option(
        None,
        "each layer of the backbone learns at this multiple of the rate of the next one, e.g. 0.8",
        above=0,
        at_most=1,
    )
    steps: int = option(REQUIRED, "length of the run in optimizer steps", at_least=1)
    warmup_steps: int = option(5000, "steps over which the rate grows to its full value", at_least=0)
    warmup_start: float = option(0.001, "fraction of the rate at the first step of the warm-up", at_least=0, at_most=1)
    eps: float = option(1e-8, "added to the root of the second moment", above=0)
    fused: bool | None = option(None, "AdamW in a single kernel; null: if gradients are not clipped")
    clip_norm: float | None = option(None, "bound of the gradient's norm; null: none", above=0)
    ema_decay: float | None = option(
        None, "validate and keep an exponential moving average of the weights, e.g. 0.999", above=0, below=1
    )

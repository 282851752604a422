"""The layout of MaX-DeepLab: residual blocks with dual-path blocks in between, and the stacked decoder, which
alternates between finer and coarser strides (arXiv 2012.00759, section 3.4 and appendix).

A network is a list of steps. A step with skips begins with a fusion and may change the stride; one without continues
where the last ended. Letters: B batch, C channels, h×w feature size; c width of a block (4c channels out), f of a
dual-path block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from kmax.model.block import EXPANSION, BasicBlock, Block
from kmax.model.layers import Activation, ConvNorm, resize

BASIC, BOTTLENECK, AXIAL = "rba"
"""The letters of the blocks in `Step.kinds`: residual (two 3×3), bottleneck, axial."""
DROP_SCALE = 4
"""The linear schedule of drop path reaches the full rate at stride 32: log₂ 32 − 1."""


@dataclass(frozen=True)
class Step:
    """Blocks of one `width` at one `stride`, of `kinds`, one letter each (`baa`: a bottleneck block, two axial ones).

    `dual_path`: f of the dual-path block after each of them, 0 for none. `skips`: begin with a fusion with the last two
    features kept at the stride. `depth`: the stride that a ResNet without atrous convolutions would have here.
    """

    stride: int
    width: int
    kinds: str
    dual_path: int = 0
    skips: bool = False
    depth: int = 0

    @property
    def channels(self) -> int:
        """Of the step's feature."""
        return EXPANSION * self.width


@dataclass(frozen=True)
class Layout:
    """A published network.

    `stem`: channels of its 3×3 convolutions; `backbone`: how many of the `steps` ImageNet weights are for;
    `semantic`: the step whose feature the semantic head reads (a plain head, or the ASPP of the other kind);
    `axial_expansion`: channels of the axial attention, in widths; `drop_from`: drop path begins at this stride.
    """

    stem: tuple[int, ...]
    steps: tuple[Step, ...]
    backbone: int
    semantic: int
    axial_expansion: int
    drop_from: int

    def scaled(self, factor: float) -> Layout:
        """The same network with all widths multiplied by `factor` and rounded to multiples of 8, the number of
        heads."""

        def scale(width: int) -> int:
            return width and max(8, 8 * round(width * factor / 8))

        steps = (replace(step, width=scale(step.width), dual_path=scale(step.dual_path)) for step in self.steps)
        return replace(self, stem=tuple(scale(channels) for channels in self.stem), steps=tuple(steps))


SMALL = Layout(
    stem=(64, 64, 128),
    steps=(
        Step(4, 64, "bbb"),
        Step(8, 128, "bbbb"),
        Step(16, 256, "baaaaa"),
        Step(16, 512, "aaa", dual_path=128, depth=32),
        Step(16, 512, "a", dual_path=128, depth=32),
        Step(8, 128, "b", skips=True),
        Step(4, 64, "b", skips=True),
    ),
    backbone=4,
    semantic=3,
    axial_expansion=2,
    drop_from=16,
)
_UP, _FINE = Step(8, 128, "rrr", skips=True), Step(4, 64, "rrr", skips=True)
_COARSE = Step(16, 512, "aaa", dual_path=256, skips=True, depth=32)
LARGE = Layout(
    stem=(64,),
    steps=(
        Step(2, 32, "rrr"),
        Step(4, 64, "rrr"),
        Step(8, 128, "rrrrrr"),
        Step(16, 256, "raa", dual_path=128),
        Step(16, 512, "aaa", dual_path=256, depth=32),
        Step(8, 128, "r", skips=True),
        Step(4, 64, "r", skips=True),
        Step(8, 128, "r", skips=True),
        Step(16, 512, "a", dual_path=256, skips=True, depth=32),
        replace(_COARSE, skips=False),
        _UP, _FINE, _UP, _COARSE, _UP, _FINE,
    ),
    backbone=9,
    semantic=11,
    axial_expansion=4,
    drop_from=4,
)  # fmt: skip
LAYOUTS = {"s": SMALL, "l": LARGE}


def drop_rates(layout: Layout, rate: float, schedule: str) -> list[list[float]]:
    """The drop-path rate of every block of every step.

    `constant` (the paper): the same everywhere. `linear` (the published configurations): rate · (log₂ s − 1) / 4, where
    s is the stride of the block's input in a ResNet without atrous convolutions; 0 below the stride `drop_from`.
    """
    rates, before = [], 2
    for step in layout.steps:
        own = step.depth or step.stride
        strides = [own if step.skips else before, *[own] * (len(step.kinds) - 1)]
        linear = [rate * (math.log2(s) - 1) / DROP_SCALE if s >= layout.drop_from else 0.0 for s in strides]
        rates.append(linear if schedule == "linear" else [rate] * len(strides))
        before = own
    return rates


class StackedFuse(nn.Module):
    """Project a feature to the channels of the skips, resize it to their size, and add the skips.

    Args:
        stride: 2 where the next step has a coarser stride: the projection then subsamples.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, act: Activation) -> None:
        super().__init__()
        self.act = act()
        self.project = ConvNorm(in_channels, channels, stride=stride)

    def forward(self, x: Tensor, skips: Sequence[Tensor], align_corners: bool) -> Tensor:
        size = (skips[0].shape[-2], skips[0].shape[-1])
        x = resize(self.project(self.act(x)), size, align_corners)
        for skip in skips:
            x = x + skip
        return x


class StepBlocks(nn.Module):
    """The residual blocks of a step and the fusion before them, without dual-path blocks.

    Args:
        in_channels, in_stride: of the feature that the step continues or fuses.
        rates: drop path of each block.
    """

    def __init__(
        self,
        step: Step,
        in_channels: int,
        in_stride: int,
        rates: Sequence[float],
        heads: int,
        axial_expansion: int,
        act: Activation,
    ) -> None:
        super().__init__()
        self.fuse: StackedFuse | None = None
        stride = step.stride // in_stride
        if step.skips:
            self.fuse = StackedFuse(in_channels, step.channels, max(stride, 1), act)
            in_channels, stride = step.channels, 1
        self.blocks = nn.ModuleList()
        for kind, rate in zip(step.kinds, rates, strict=True):
            self.blocks.append(
                BasicBlock(in_channels, step.width, stride=stride, drop_path=rate, act=act)
                if kind == BASIC
                else Block(
                    in_channels, step.width, kind == AXIAL, heads=heads, stride=stride, drop_path=rate, act=act,
                    axial_expansion=axial_expansion,
                )
            )  # fmt: skip
            in_channels, stride = step.channels, 1

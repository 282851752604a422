"""The pixel decoder: axial-attention and bottleneck blocks from stride 32 up to the finest stride.

Letters: B batch, C channels, h×w feature size; c is the width of a stage, whose output has 4c channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from kmax.model.block import EXPANSION, Block
from kmax.model.layers import ChannelNorm, ConvNorm, resize
from kmax.model.options import ModelOptions
from kmax.model.recompute import recompute
from kmax.options import OptionError


class Fuse(nn.Module):
    """Coarse feature, resized, plus the backbone's next feature, both in `channels`."""

    def __init__(self, coarse_channels: int, fine_channels: int, channels: int) -> None:
        super().__init__()
        self.coarse = ConvNorm(coarse_channels, channels) if coarse_channels != channels else None
        self.fine = ConvNorm(fine_channels, channels) if fine_channels != channels else None

    def forward(self, coarse: Tensor, fine: Tensor, align_corners: bool) -> Tensor:
        if self.coarse is not None:
            coarse = self.coarse(F.gelu(coarse))
        if self.fine is not None:
            fine = self.fine(F.gelu(fine))
        return resize(coarse, (fine.shape[-2], fine.shape[-1]), align_corners) + fine


class PixelDecoder(nn.Module):
    """Features from coarse to fine → one feature of 4·width channels per stage.

    Args:
        in_channels: of the backbone's features, in the order in which the stages take them.
        options: `widths` c and `blocks` of each stage; the coarsest `axial_stages` use axial attention.

    Raises:
        OptionError: fewer widths or blocks than stages.
    """

    def __init__(self, in_channels: Sequence[int], options: ModelOptions) -> None:
        super().__init__()
        stages = len(in_channels)
        if min(len(options.widths), len(options.blocks)) < stages:
            raise OptionError(f"widths and blocks need {stages} entries, one for each stage.")
        self.checkpointing = options.checkpointing
        self.norms = nn.ModuleList(ChannelNorm(channels) for channels in in_channels)
        self.stages = nn.ModuleList()
        self.fuses = nn.ModuleList()
        self.channels = [EXPANSION * width for width in options.widths[:stages]]
        channels = in_channels[0]
        for i, width in enumerate(options.widths[:stages]):
            if i:
                self.fuses.append(Fuse(channels, in_channels[i], width))
                channels = width
            self.stages.append(_stage(channels, width, options.blocks[i], i < options.axial_stages, options))
            channels = self.channels[i]

    def forward(self, features: Sequence[Tensor], align_corners: bool) -> list[Tensor]:
        outputs: list[Tensor] = []
        for i, (stage, norm, feature) in enumerate(zip(self.stages, self.norms, features, strict=True)):
            x = norm(feature) if i == 0 else self.fuses[i - 1](outputs[-1], norm(feature), align_corners)
            outputs.append(recompute(stage, x) if self.checkpointing and self.training else stage(x))
        return outputs


def _stage(in_channels: int, width: int, count: int, axial: bool, options: ModelOptions) -> nn.Sequential:
    """`count` blocks, the first of which takes `in_channels`."""
    sizes = [in_channels] + [EXPANSION * width] * (count - 1)
    dilation = 2 if options.family == "deeplab2" else 1
    return nn.Sequential(
        *(
            Block(
                size,
                width,
                axial,
                heads=options.decoder_heads,
                dilation=dilation,
                drop_path=options.decoder_drop_path,
            )
            for size in sizes
        )
    )

"""The pixel decoder: axial-attention and bottleneck blocks from stride 32 up to the finest stride.

Letters: B batch, C channels, h×w feature size; c is the width of a stage, whose output has 4c channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from kmax.model.block import EXPANSION, Block
from kmax.model.layers import ChannelNorm, ConvNorm, resize
from kmax.model.recompute import recompute


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
        widths, blocks, axial: c, number of blocks and kind of each stage.
        dilation: of the 3×3 in bottleneck blocks (2 in the deeplab2 family).
        checkpointing: compute the activations of each stage again in the backward pass.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        widths: Sequence[int],
        blocks: Sequence[int],
        axial: Sequence[bool],
        heads: int = 8,
        dilation: int = 1,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.norms = nn.ModuleList(ChannelNorm(channels) for channels in in_channels)
        self.stages = nn.ModuleList()
        self.fuses = nn.ModuleList()
        channels = in_channels[0]
        for i, (width, count, is_axial) in enumerate(zip(widths, blocks, axial, strict=True)):
            if i:
                self.fuses.append(Fuse(channels, in_channels[i], width))
                channels = width
            sizes = [channels] + [EXPANSION * width] * (count - 1)
            self.stages.append(
                nn.Sequential(
                    *(
                        Block(size, width, is_axial, heads=heads, dilation=dilation, drop_path=drop_path)
                        for size in sizes
                    )
                )
            )
            channels = EXPANSION * width

    def forward(self, features: Sequence[Tensor], align_corners: bool) -> list[Tensor]:
        outputs: list[Tensor] = []
        for i, (stage, norm, feature) in enumerate(zip(self.stages, self.norms, features, strict=True)):
            x = norm(feature) if i == 0 else self.fuses[i - 1](outputs[-1], norm(feature), align_corners)
            outputs.append(recompute(stage, x) if self.checkpointing and self.training else stage(x))
        return outputs

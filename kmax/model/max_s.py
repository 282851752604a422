"""The MaX-S backbone: an axial-attention ResNet-50 with GELU (MaX-DeepLab, arXiv 2012.00759, section 3.4).

Letters: B batch, H×W input size.
"""

from __future__ import annotations

from torch import Tensor, nn

from kmax.model.block import EXPANSION, Block, stem
from kmax.model.features import STEM, STRIDES, Backbone

STEM_CHANNELS = (64, 64, 128)
STAGES = ((64, "bbb"), (128, "bbbb"), (256, "baaaaa"), (512, "aaa"))
"""Width and kinds of the blocks (b bottleneck, a axial) of the stages at strides 4, 8, 16 and 32."""


class MaXS(Backbone):
    """The backbone; features still lack their activation, which is GELU, and the stem's feature has stride 2.

    Args:
        drop_path: rate of the last block, growing linearly from 0.
    """

    def __init__(self, drop_path: float = 0.0) -> None:
        super().__init__()
        self.stem = stem(STEM_CHANNELS, nn.GELU)
        total = sum(len(kinds) for _, kinds in STAGES)
        rates = iter(drop_path * i / (total - 1) for i in range(total))
        self.stages = nn.ModuleList()
        channels = STEM_CHANNELS[-1]
        for width, kinds in STAGES:
            blocks = []
            for i, kind in enumerate(kinds):
                stride = 2 if i == 0 else 1
                blocks.append(Block(channels, width, kind == "a", stride=stride, drop_path=next(rates)))
                channels = EXPANSION * width
            self.stages.append(nn.Sequential(*blocks))
        self.act = nn.GELU()
        self.channels = {
            STEM: STEM_CHANNELS[-1],
            **{s: EXPANSION * w for s, (w, _) in zip(STRIDES, STAGES, strict=True)},
        }

    def parts(self) -> list[nn.Module]:
        return [self.stem, *self.stages]

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        x = self.stem(images)
        features = {STEM: x}
        for stride, stage in zip(STRIDES, self.stages, strict=True):
            x = features[stride] = self.run(stage, x)
        return features

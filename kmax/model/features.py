"""The interface of every backbone: features by stride.

Letters: B batch, H×W input size.
"""

from __future__ import annotations

from torch import Tensor, nn

from kmax.model.recompute import recompute
from kmax.options import OptionError

STRIDES = (4, 8, 16, 32)
STEM = 0
"""Key of the stem's feature."""


class Backbone(nn.Module):
    """Features by stride: forward maps images (B, 3, H, W) to {4, 8, 16, 32 and, where there is one, 0: stem}.

    `channels` has the same keys. The feature at stride s has ⌈H/s⌉ × ⌈W/s⌉ cells, on pixels 0, s, 2s, …
    `act` is the activation that a feature still lacks (deeplab2 family), else the identity.
    """

    channels: dict[int, int]
    checkpointing: bool = False
    act: nn.Module
    _fixed: tuple[nn.Module, ...] = ()  # modules that stay in eval mode

    def parts(self) -> list[nn.Module]:
        """The learnable modules in order: the stem, then the four stages.

        Raises:
            OptionError: this kind of backbone is not split into stages.
        """
        raise OptionError("freeze takes all or 0 for this backbone, whose stages are not separate modules.")

    def freeze(self, stages: int | str, norms: bool) -> None:
        """Freeze the stem and the first `stages` stages, or "all"; with `norms`, all batch norms also keep their
        running statistics.

        Raises:
            OptionError: a number of stages for a backbone that is not split into stages.
        """
        if stages == "all":
            fixed: list[nn.Module] = [self]
        else:
            fixed = self.parts()[: int(stages) + 1] if stages else []
        for module in fixed:
            module.requires_grad_(False)
        if norms:
            fixed += [module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self._fixed = tuple(fixed)
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """As for any module, but frozen parts stay in eval mode: no drop path, and unchanged running statistics."""
        super().train(mode)
        for module in self._fixed:
            if module is self:
                super().train(False)
            else:
                module.eval()
        return self

    def run(self, stage: nn.Module, x: Tensor) -> Tensor:
        """Run a stage; with `checkpointing` its activations are computed again in the backward pass."""
        y: Tensor = recompute(stage, x) if self.checkpointing and self.training else stage(x)
        return y

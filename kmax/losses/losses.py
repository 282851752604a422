"""The losses of a training step, by name."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class PredictionLosses:
    """The weighted losses of L predictions, coarse to final, (L,) each."""

    classes: Tensor
    mask: Tensor
    dice: Tensor
    instance_discrimination: Tensor


@dataclass(frozen=True)
class Losses:
    """The weighted losses of a step: `predictions`; `semantic`, a scalar, if there is a semantic head; `relaxation`
    (R,), the semantic losses of the R relaxation heads, if there are any."""

    predictions: PredictionLosses
    semantic: Tensor | None = None
    relaxation: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """What is minimized: the sum of all of them."""
        total = torch.stack(list(self._named().values())).sum()
        total = total if self.semantic is None else total + self.semantic
        return total if self.relaxation is None else total + self.relaxation.sum()

    @property
    def final(self) -> dict[str, Tensor]:
        """Scalars by name: the losses of the final prediction, and `semantic` if there is one."""
        last = {name: values[-1] for name, values in self._named().items()}
        return last if self.semantic is None else {**last, "semantic": self.semantic}

    def by_name(self) -> dict[str, Tensor]:
        """Every loss as a scalar: `class`, `mask`, … and `semantic` as in `final`; `class_0`, `class_1`, … are those of
        the coarser predictions; `relaxation_0`, … those of the relaxation heads."""
        coarse = {
            f"{name}_{i}": value
            for name, values in self._named().items()
            for i, value in enumerate(values[:-1].unbind())
        }
        heads = [] if self.relaxation is None else list(self.relaxation.unbind())
        return self.final | coarse | {f"relaxation_{i}": value for i, value in enumerate(heads)}

    def _named(self) -> dict[str, Tensor]:
        names = {field.name: field.name for field in fields(self.predictions)} | {"classes": "class"}
        return {names[field.name]: getattr(self.predictions, field.name) for field in fields(self.predictions)}

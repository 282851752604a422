"""Models without data: shapes and devices alone, to count what a step costs."""

from __future__ import annotations

import torch
from torch import nn


def to_fake(model: nn.Module, device: str = "cpu") -> None:
    """Replace the tensors of a model on the meta device by fakes on `device`; call it under FakeTensorMode."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            values = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            setattr(module, name, nn.Parameter(values, requires_grad=parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))

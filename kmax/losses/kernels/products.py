"""Matrix products in their fastest form on a CPU: as 1×1 convolutions.

oneDNN, which computes convolutions, uses the widest vectors of every brand of CPU; MKL's products do not (on AMD they
take twice the time). With a single thread PyTorch would pass these convolutions to MKL; a dilation, which has no effect
on 1×1 kernels, prevents that. On other devices and in other precisions than float32, these are batched products.

Letters: n images, r and c rows, k and m columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight


def product(a: Tensor, b: Tensor) -> Tensor:
    """(n, r, k), (n, c, k) → a bᵀ for each image, (n, r, c)."""
    if not _by_convolution(a):
        return a @ b.transpose(1, 2)
    return F.conv2d(_pixels(a[0]), b[0].reshape(*b.shape[1:], 1, 1), dilation=2)[:, :, :, 0].transpose(1, 2)


def product_over_rows(a: Tensor, b: Tensor) -> Tensor:
    """(n, r, k), (n, r, m) → aᵀ b for each image, (n, k, m)."""
    if not _by_convolution(a):
        return a.transpose(1, 2) @ b
    shape = (a.shape[2], b.shape[2], 1, 1)
    weight: Tensor = conv2d_weight(_pixels(b[0]), shape, _pixels(a[0]), dilation=2)
    return weight[None, :, :, 0, 0]


def _by_convolution(a: Tensor) -> bool:
    return a.device.type == "cpu" and a.dtype == torch.float32 and len(a) == 1 and a.shape[1] > 0


def _pixels(a: Tensor) -> Tensor:
    """View rows as the pixels of an image, (r, k) → (1, k, r, 1), without a copy."""
    return a.contiguous().view(1, len(a), 1, -1).permute(0, 3, 1, 2)

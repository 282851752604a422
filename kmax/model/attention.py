"""Multi-head attention with normalized logits (MaX-DeepLab, arXiv 2012.00759, section 3.1; kMaX-DeepLab as well).

Letters: B batch, C channels, D depth of queries and keys together, h heads, n queries, m keys.
"""

from __future__ import annotations

from torch import Tensor, nn

from kmax.model.layers import Activation, batch_norm
from kmax.numerics import at_least_float32


class NormalizedAttention(nn.Module):
    """act(batchnorm(softmax(batchnorm_heads(q·k)) v)): one scale and shift per head, and no 1/√d."""

    def __init__(self, dim: int, heads: int, act: Activation) -> None:
        super().__init__()
        self.heads = heads
        self.logit_norm = batch_norm(heads, 2)
        self.output_norm = batch_norm(dim, 1)
        self.act = act()

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries (B, D, n), keys (B, D, m) and values (B, C, m) → (B, C, n)."""
        weight = self.weights(query, key)
        v = value.unflatten(1, (self.heads, -1))  # (B, h, C/h, m)
        gathered = (v @ weight.to(v.dtype).transpose(-1, -2)).flatten(1, 2)  # (B, h, C/h, n) → (B, C, n)
        activated: Tensor = self.act(self.output_norm(gathered))
        return activated

    def weights(self, query: Tensor, key: Tensor) -> Tensor:
        """Attention weights (B, h, n, m) of each query over the keys, in at least float32; they sum to 1 over the
        keys."""
        q, k = (x.unflatten(1, (self.heads, -1)) for x in (query, key))  # (B, h, D/h, n or m)
        return at_least_float32(self.logit_norm(q.transpose(-1, -2) @ k)).softmax(-1)

"""Ranks of a group on gloo, forked from one process: `python sync_norm_worker.py FOLDER RANKS`.

Each rank runs every case on its share of a batch and writes what it gets to FOLDER/CASE-RANK.pt (test_sync_norm.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

from kmax.model.recompute import recompute
from kmax.strategy.sync_norm import synchronize

SHARES = {2: (2, 4), 3: (2, 1, 3)}
"""Images of each rank."""
SHAPE = (5, 7, 6)  # C, h, w


def conv_norm(norm: nn.Module, dims: int = 2) -> nn.Module:
    """Two norms with a convolution between, the second without an activation of its own."""
    conv, plain = {1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d)}[dims]
    return nn.Sequential(norm, conv(5, 5, 1, bias=False), plain(5, eps=1e-3, momentum=0.01))


def activated() -> nn.Module:
    return conv_norm(BatchNormAct2d(5, eps=1e-3, act_layer=nn.SiLU))


CASES: dict[str, tuple[Callable[[], nn.Module], torch.dtype, bool]] = {
    "activation": (activated, torch.float32, False),
    "double": (activated, torch.float64, False),
    "recomputed": (activated, torch.float64, True),
    "cumulative": (lambda: conv_norm(nn.BatchNorm2d(5, momentum=None, affine=False)), torch.float64, False),
    "no statistics": (lambda: conv_norm(nn.BatchNorm2d(5, track_running_stats=False)), torch.float64, False),
    "one axis": (lambda: conv_norm(nn.BatchNorm1d(5), 1), torch.float64, False),
}


def run(case: str, images: slice, replace: bool) -> dict[str, Any]:
    """Two steps of a case on some images of the batch: output, gradients and buffers afterwards."""
    make, dtype, again = CASES[case]
    torch.manual_seed(0)
    network = make().to(dtype)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    batch = 3 * torch.randn(6, *SHAPE, dtype=dtype) + 2
    factor = torch.randn_like(batch)
    if case == "one axis":
        batch, factor = batch.flatten(2), factor.flatten(2)
    network = synchronize(network) if replace else network
    x = batch[images].clone().requires_grad_()
    for _ in range(2):
        y = recompute(network, x) if again else network(x)
        (y.square() * factor[images]).mul(1 / 16).sum().backward()
    assert x.grad is not None
    gradients = {name: p.grad for name, p in network.named_parameters()}
    return {"y": y.detach(), "x": x.grad, "gradients": gradients, "buffers": dict(network.named_buffers())}


def rank_main(rank: int, ranks: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    start = sum(SHARES[ranks][:rank])
    for case in CASES:
        torch.save(run(case, slice(start, start + SHARES[ranks][rank]), True), folder / f"{case}-{rank}.pt")
    dist.destroy_process_group()


def main(folder: Path, ranks: int) -> None:
    torch.set_num_threads(1)
    torch.multiprocessing.start_processes(rank_main, (ranks, folder), nprocs=ranks, start_method="fork")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

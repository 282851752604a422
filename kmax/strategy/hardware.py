"""Checks of the hardware for the section `strategy`, and preparation of the model for it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import nn

from kmax.options import OptionError
from kmax.strategy.options import StrategyOptions
from kmax.strategy.sync_norm import synchronize

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h


def check_hardware(strategy: StrategyOptions) -> None:
    """Refuse early what would end in a long traceback, or would silently be replaced by something else.

    Raises:
        OptionError: no GPU where one is asked for, or one that PyTorch was not built for; float16 on a CPU.
    """
    if strategy.accelerator == "mps" and not torch.backends.mps.is_available():
        raise OptionError(
            "accelerator=mps, but there is no Apple GPU that torch can use: choose strategy=auto, which takes what is "
            "there, or strategy=cpu."
        )
    if strategy.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise OptionError(
            f"accelerator={strategy.accelerator}, but torch sees no GPU: choose strategy=cpu, or look at the driver "
            "and at CUDA_VISIBLE_DEVICES."
        )
    if not _on_cpu(strategy.accelerator) and torch.cuda.is_available():
        check_architectures()
    if _on_cpu(strategy.accelerator) and strategy.precision == "16-mixed":
        raise OptionError(
            "precision=16-mixed needs a GPU: choose bf16-mixed or 32-true on a CPU (Lightning would take bf16-mixed "
            "without a word)."
        )


def check_architectures() -> None:
    """Refuse GPUs that this build of PyTorch has no code for, with a clearer message than that of the first kernel.

    Raises:
        OptionError: there is such a GPU.
    """
    built = torch.cuda.get_arch_list()
    for device in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(device)
        if built and not has_code_for(major, minor, built):
            raise OptionError(
                f"accelerator: PyTorch {torch.__version__} has no code for {torch.cuda.get_device_name(device)} "
                f"(sm_{major}{minor}), only for {', '.join(built)}: install a build of PyTorch that has "
                "(docs/performance.md), or hide this GPU with CUDA_VISIBLE_DEVICES."
            )


def has_code_for(major: int, minor: int, built: Sequence[str]) -> bool:
    """Whether one of the architectures `built`, e.g. `sm_80` or `compute_90`, runs on a GPU of this compute capability:
    machine code of the same major version that is not newer, or portable code that is not newer."""
    for name in built:
        kind, _, version = name.partition("_")
        digits = version.rstrip("af")  # sm_90a, sm_100f: for this family of GPUs
        own = (int(digits[:-1]), int(digits[-1]))
        if own <= (major, minor) and (kind == "compute" or own[0] == major):
            return True
    return False


def _on_cpu(accelerator: str) -> bool:
    return accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())


def keep_freed_memory() -> None:
    """Make glibc's malloc keep freed memory, of any size, for the next step: returning gigabytes to the system and
    getting them back page by page takes a third of the time of the losses on a CPU. Does nothing on other systems."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)  # a block that has a mapping of its own would be given back
    mallopt(_TRIM_THRESHOLD, -1)  # never


def tune_model(model: nn.Module, strategy: StrategyOptions) -> None:
    """Prepare a model for `strategy`: memory layout, batch norms synchronized over ranks, compilation.

    On one rank the results and the parameter names do not change. On a CPU, freed memory is also kept between steps.
    """
    if _on_cpu(strategy.accelerator):
        keep_freed_memory()
    if strategy.channels_last:
        model.to(memory_format=torch.channels_last)
    if strategy.sync_batchnorm:
        synchronize(model)
    if strategy.compile:
        model.compile()

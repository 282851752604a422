"""Estimates before a job is queued: memory per GPU by crop and backbone, and hours of the published experiments.

    python scripts/memory_table.py                                  # all published experiments, as Markdown
    python scripts/memory_table.py coco_resnet50 --crops 641x641 1025x1025
    python scripts/memory_table.py experiment=finetune dataset.root=mydata    # does a run fit 8, 12, 16, 24 GB?

No GPU is needed: the forward pass runs under fp16 autocast on fake tensors, which have shapes and no data, while what
autograd keeps for the backward pass is added up and FLOPs are counted. The losses run on random predictions.

"Recomputed" is with `backbone.checkpointing=true model.checkpointing=true`, at the cost of a second forward pass.

Memory = 22 bytes per parameter (fp32 weight, gradient and two moments of AdamW: 16; DDP's buckets: 4; autocast's fp16
copies: 2) + images × what is kept per image + 1.5 GiB for the CUDA context, workspaces and fragmentation. A training
step counts as three forward passes. Hours are scaled to the one published time: 53 h on 32 V100 for COCO, ResNet-50.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from hydra.errors import HydraException

from kmax.config.compose import compose_config, run_options
from kmax.config.memory import GIB, inference_bytes, measure, recomputed
from kmax.config.options import TrainOptions

EXPERIMENTS = (
    *(f"coco_{name}" for name in ("resnet50", "convnext_tiny", "convnext_small", "convnext_base", "convnext_large")),
    *(f"cityscapes_{name}" for name in ("resnet50", "convnext_large")),
)
CARDS = (8, 12, 16, 24)
"""Gigabytes of usual GPUs."""
PUBLISHED = ("coco_resnet50", 53 * 3600 * 32)  # seconds on one V100


def experiment_options(name: str | None, *overrides: str) -> TrainOptions:
    """The options of an experiment, without those that need a running job."""
    config = compose_config(name, *overrides)
    del config.callbacks, config.logger
    return run_options(config)


def memory_rows(names: Sequence[str], crops: Sequence[tuple[int, int]] | None) -> list[str]:
    """The Markdown table of memory."""
    lines = [
        "| experiment | crop | parameters | fixed | per image · recomputed | images on 16 GB · 32 GB | recomputed |",
        "| --- " * 7 + "|",
    ]
    for name in names:
        options = experiment_options(name)
        own = options.dataset.size
        for crop in crops or ([own] if name.startswith("cityscapes") else [(641, 641), own]):
            costs = [measure(chosen, crop) for chosen in (options, recomputed(options))]
            kept = " · ".join(f"{cost.kept / GIB:.1f} GiB" for cost in costs)
            fits = (" · ".join(str(cost.images(memory * GIB)) for memory in (16, 32)) for cost in costs)
            cost = costs[0]
            lines.append(
                f"| `{name}` | {crop[0]}×{crop[1]} | {cost.parameters / 1e6:.1f} M | {cost.memory(0) / GIB:.1f} GiB "
                f"| {kept} | {' | '.join(fits)} |"
            )
    return lines


def run_rows(overrides: Sequence[str]) -> list[str]:
    """The Markdown table of one run: what it takes as it is, and with each of the options that save most."""
    options = experiment_options(None, *overrides)
    frozen = replace(options, backbone=replace(options.backbone, freeze="all"))
    height, width = options.dataset.size
    lines = [
        f"Training with crops of {height}×{width}, a batch of {options.dataset.batch_size}; where fewer images fit,"
        " set strategy.batch_size_per_device.",
        "",
        f"| {options.name} | per image | images on {' · '.join(map(str, CARDS))} GB |",
        "| --- " * 3 + "|",
    ]
    for title, chosen in (
        ("as it is", options),
        ("`backbone.checkpointing=true model.checkpointing=true`", recomputed(options)),
        ("`backbone.freeze=all`", frozen),
    ):
        cost = measure(chosen, options.dataset.size)
        fits = " · ".join(str(cost.images(memory * GIB)) for memory in CARDS)
        lines.append(f"| {title} | {cost.kept / GIB:.2f} GiB | {fits} |")
    # Evaluation keeps the training's weights and moments; images have the size of the crops.
    forward = options.strategy.val_batch_size_per_device * inference_bytes(options, options.dataset.size)
    whole = (measure(options, options.dataset.size).memory(0) + forward) / GIB
    lines += ["", f"Validation during training needs {forward / GIB:.2f} GiB for its images, {whole:.1f} GiB in all."]
    return lines


def hour_rows(names: Sequence[str]) -> list[str]:
    """The Markdown table of hours."""
    reference = _work(PUBLISHED[0])[0] / PUBLISHED[1]  # FLOPs per second of one V100
    lines = [
        f"A V100 at {3 * reference / 1e12:.1f} TFLOP/s gives the published time.",
        "",
        "| experiment | images | TFLOP per image, forward | V100 hours | hours on 32 · 8 · 1 |",
        "| --- " * 5 + "|",
    ]
    for name in names:
        work, images = _work(name)
        hours = work / reference / 3600
        spread = " · ".join(f"{hours / devices:.0f}" for devices in (32, 8, 1))
        lines.append(f"| `{name}` | {images / 1e6:.1f} M | {work / images / 1e12:.2f} | {hours:.0f} | {spread} |")
    return lines


def _work(name: str) -> tuple[float, int]:
    """(FLOPs of all forward passes, images) of an experiment."""
    options = experiment_options(name)
    images = options.dataset.batch_size * options.optimizer.steps
    return measure(options, options.dataset.size).flops * images, images


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "experiments", nargs="*", default=EXPERIMENTS, help="files of conf/experiment, or overrides as of train.py"
    )
    parser.add_argument("--crops", nargs="+", help="HxW, e.g. 641x641 (default: 641x641 and the experiment's own)")
    options = parser.parse_args(arguments)
    try:
        if overrides := [word for word in options.experiments if "=" in word]:
            print("\n".join(run_rows(overrides)))
            return
        crops = [tuple(map(int, crop.split("x"))) for crop in options.crops or []]
        print("\n".join(memory_rows(options.experiments, [(h, w) for h, w in crops])), end="\n\n", flush=True)
        if not crops:
            small = ("coco_resnet50_8gpu", "coco_resnet50_1gpu") if options.experiments is EXPERIMENTS else ()
            print("\n".join(hour_rows([*options.experiments, *small])))
    except (ValueError, FileNotFoundError, HydraException) as error:
        sys.exit(f"error: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()

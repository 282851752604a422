"""Time and memory: of training and inference on this device, and of the costly parts on a CPU.

    python scripts/benchmark.py                            everything that fits this device, in nine minutes at most
    python scripts/benchmark.py training --json out.json   one of the names below; figures as JSON, too
    python scripts/benchmark.py criterion                  a part, on the CPU
    python scripts/benchmark.py definition_321             plain definitions in units of the criterion, which is faster

training, inference, precision: tables for the device. A step is split into data, forward, criterion, backward and
optimizer (each is waited for, so their sum exceeds a step); launches and waits are counted. precision is the PQ of a
trained checkpoint (--ckpt) in each precision.

The parts are the best of a few repetitions, relative to a reference timed in the same run: unless a part names another,
one float32 product of two 2048 × 2048 matrices.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from benchmark_device import (
    PHASES,
    Row,
    cpu_settings,
    gpu_settings,
    measure_inference,
    measure_precision,
    measure_step,
    quick_settings,
)
from benchmark_parts import BENCHMARKS, DEFAULT_BENCHMARKS, parts

from kmax.strategy.threads import fit_threads

TINY = (
    "backbone.name=test_resnet",
    "model.widths=[16,16,16,16]",
    "model.dim=32",
    "model.feature_dim=16",
    "model.ffn_dim=32",
    "model.heads=4",
    "model.decoder_heads=4",
)
"""Overrides for a model that runs in seconds."""


def training(device: torch.device, quick: bool, deadline: float) -> list[Row]:
    """A row per setting, as long as there is time."""
    settings = quick_settings(TINY) if quick else gpu_settings() if device.type == "cuda" else cpu_settings()
    print(f"| training on {device} | batch | images/s | ms: {', '.join(PHASES)} | launches | waits | peak |")
    print("| --- " * 7 + "|")
    rows: list[Row] = []
    for setting in settings:
        late = time.perf_counter() > deadline
        row = {"error": "not measured: no time left"} if late else measure_step(setting, device, 1 if quick else 5)
        options = [name for name in ("compiled", "sync_norm", "recompute") if getattr(setting, name)]
        options += [] if setting.channels_last else ["channels first"]
        name = setting.experiment or "tiny"
        title = f"{name} {setting.size[0]}×{setting.size[1]} {', '.join([setting.precision, *options])}"
        print(f"| {title} | {setting.batch} | {_figures(row)} |", flush=True)
        rows.append({"setting": title, **row})
    return rows


def _figures(row: Row) -> str:
    if "error" in row:
        return f"{row['error']} | | | | "
    phases = " · ".join(f"{row['ms'][name]:.0f}" for name in PHASES)
    counts = (str(row[key]) if row.get(key) is not None else "–" for key in ("launches", "waits"))
    peak = f"{row['peak_gib']:.1f} GiB" if "peak_gib" in row else "–"
    return f"{row['images_per_s']:.1f} | {phases} | {' | '.join(counts)} | {peak}"


def inference(device: torch.device, quick: bool, deadline: float) -> list[Row]:
    """A row per runtime and precision."""
    runtimes = [("torch", "fp32"), ("torch", "bf16")]
    if not quick:
        on_gpu = device.type == "cuda"
        runtimes += [("torch", "fp16"), ("compile", "fp16")] if on_gpu else [("onnx", "fp32"), ("compile", "fp32")]
    size, experiment = ((65, 65), None) if quick else ((641, 641), "coco_resnet50")
    print("\n| inference | images/s | post-processing |\n| --- | --- | --- |")
    rows: list[Row] = []
    for runtime, precision in runtimes:
        if time.perf_counter() > deadline:
            continue
        row = measure_inference(experiment, size, device, runtime, precision, *(TINY if quick else ()))
        about = f"{row['experiment']} {size[0]}×{size[1]} {runtime} {precision}"
        print(f"| {about} | {row['images_per_s']:.1f} | {row['postprocess_ms']:.0f} ms |", flush=True)
        rows.append(row)
    return rows


def precision(ckpt: Path, device: torch.device, quick: bool) -> list[Row]:
    """A row per precision, where there is a checkpoint."""
    if not ckpt.exists():
        print(f"precision: left out. There is no checkpoint {ckpt}: `make demo` trains one, --ckpt names another.")
        return []
    rows = measure_precision(ckpt, device, 2 if quick else None)
    print("\n" + " · ".join(f"PQ in {row['precision']} {row['pq']:.2f}" for row in rows), flush=True)
    return rows


DEVICE_TABLES = ("training", "inference", "precision")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    known = (*DEVICE_TABLES, *BENCHMARKS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--ckpt", type=Path, default=Path("runs/demo/checkpoints/best.ckpt"))
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--quick", action="store_true", help="tiny models, to see that everything works")
    parser.add_argument("--limit", type=float, default=480, help="seconds after which no further row is begun")
    parser.add_argument("--threads", type=int, help="of PyTorch (default: as many as there are free cores)")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}.")
    if options.threads:
        torch.set_num_threads(options.threads)
    threads = options.threads or fit_threads()
    torch.manual_seed(0)
    names, device = options.names or (*DEVICE_TABLES, *DEFAULT_BENCHMARKS), torch.device(options.device)
    deadline = time.perf_counter() + options.limit
    report: dict[str, object] = {"device": device_name(device), "torch": torch.__version__, "threads": threads}
    print(f"{report['device']}, {threads} thread{'s' if threads > 1 else ''}", flush=True)
    if "training" in names:
        report["training"] = training(device, options.quick, deadline)
    if "inference" in names:
        report["inference"] = inference(device, options.quick, deadline)
    if "precision" in names:
        report["precision"] = precision(options.ckpt, device, options.quick)
    if not options.quick:
        report["parts"] = parts(names, options.repetitions)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def device_name(device: torch.device) -> str:
    """What the figures were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()

"""Convert published checkpoints into ours, and ours into smaller files or into Detectron2's format.

    python scripts/convert_weights.py --download coco_resnet50                     # by its name in docs/model_zoo.md
    python scripts/convert_weights.py kmax_r50.pth r50.safetensors
    python scripts/convert_weights.py kmax_resnet50_coco_train/ckpt-150000 r50_tf.ckpt
    python scripts/convert_weights.py runs/demo/checkpoints/best.ckpt demo.safetensors --strip
    python scripts/convert_weights.py r50.safetensors r50.pth --to-detectron2

SOURCE is a PyTorch file (.pth, .pkl, .safetensors) or a TensorFlow checkpoint (prefix, .index file or folder); what it
is follows from its names and shapes. TARGET ends in .ckpt or .safetensors; evaluate.py, Predictor.from_checkpoint and
init_from take either as it is. With --download there is no SOURCE, and without TARGET the file stays in the cache,
where evaluate.py ckpt=NAME, kmax.Predictor.from_pretrained("NAME") and init_from=NAME find it.
"""

from __future__ import annotations

import argparse
import pickle
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from rich.prompt import Prompt
from torch import Tensor

from kmax.categories import load_categories
from kmax.checkpoint.detectron2 import to_detectron2
from kmax.checkpoint.download import fetch_backbone
from kmax.checkpoint.own import CONFIG_KEY, read_checkpoint, write_checkpoint
from kmax.checkpoint.published import find_published
from kmax.config.convert import PREFIX, Conversion, Told, convert
from kmax.config.explain import run_or_explain
from kmax.config.pretrained import download
from kmax.config.variants import VARIANTS, AmbiguousError
from kmax.files import replacing


def strip(source: Path, target: Path) -> None:
    """Leave weights, configuration and classes only. If weights were averaged in training, `state_dict` holds the
    average, which is kept."""
    write_checkpoint(target, read_checkpoint(source))


def export_detectron2(source: Path, target: Path) -> None:
    """Write a checkpoint of ours as the published PyTorch code reads it: `.pth` with tensors or `.pkl` with arrays.

    Raises:
        ValueError: a model of the other family, or with parts that the published ones lack; another suffix.
    """
    if target.suffix not in (".pth", ".pkl"):
        raise ValueError(f"{target} should end in .pth or .pkl: the published PyTorch code reads these.")
    checkpoint = read_checkpoint(source)
    if checkpoint[CONFIG_KEY]["model"]["family"] != "detectron2":
        raise ValueError(
            f"{source} is of the deeplab2 family: the published PyTorch code would compute something else with it."
        )
    state = {name.removeprefix(PREFIX): value for name, value in checkpoint["state_dict"].items()}
    with replacing(target) as file:
        _write_detectron2(file, target.suffix, to_detectron2(state))


def _write_detectron2(file: Path, suffix: str, state: Mapping[str, Tensor]) -> None:
    if suffix == ".pth":
        torch.save({"model": state}, file)
    else:
        arrays = {name: value.numpy() for name, value in state.items()}
        file.write_bytes(pickle.dumps({"model": arrays, "__author__": "kmax", "matching_heuristics": True}, protocol=4))


def get(name: str, target: Path | None, told: Told) -> Path:
    """Download a published file by its name; returns the path of the converted file."""
    entry = find_published(name)
    if entry.backbone:
        return fetch_backbone(entry)
    path, done = download(entry, told)
    if done:
        report(done)
    if target is None:
        return path
    if target.suffix == path.suffix:
        with replacing(target) as file:
            shutil.copyfile(path, file)
    else:
        strip(path, target)
    return target


def report(done: Conversion) -> None:
    """Print what a checkpoint was recognized as, and what was assumed."""
    print(f"recognized: {done.recognized}")
    for sentence in done.assumed:
        print(f"took: {sentence}")


def asking(work: Callable[[Told], None], told: Told) -> None:
    """Do the work; if names leave a choice open and there is a terminal, ask the user."""
    try:
        work(told)
    except AmbiguousError as error:
        if not sys.stdin.isatty():
            raise
        print(error)
        work(replace(told, resnet=Prompt.ask("whose ResNet", choices=list(VARIANTS))))


def run(arguments: argparse.Namespace) -> None:
    """Run the command line."""
    told = Told(
        categories=load_categories(arguments.categories) if arguments.categories else None,
        size=arguments.size,
        resnet=arguments.resnet,
        images=Path(arguments.images) if arguments.images else None,
        experiment=arguments.experiment or (),
    )
    if arguments.download:
        target = Path(arguments.source) if arguments.source else None
        asking(lambda told: _wrote(get(arguments.download, target, told)), told)
        return
    if not arguments.source or not arguments.target:
        raise ValueError("convert_weights.py needs SOURCE and TARGET, or --download NAME.")
    source, target = Path(arguments.source), Path(arguments.target)
    if arguments.strip:
        strip(source, target)
    elif arguments.to_detectron2:
        export_detectron2(source, target)
    else:
        asking(lambda told: report(convert(source, target, told)), told)
    _wrote(target)


def _wrote(path: Path) -> None:
    print(f"wrote {path} ({path.stat().st_size / 2**20:.0f} MiB)")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", nargs="?")
    parser.add_argument("target", metavar="TARGET", nargs="?")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--download", metavar="NAME", help="get a published file by its name in the model zoo")
    mode.add_argument("--strip", action="store_true", help="leave weights and configuration of a run of ours only")
    mode.add_argument("--to-detectron2", action="store_true", help="write a checkpoint of ours for Detectron2")
    parser.add_argument("--categories", metavar="FILE", help="classes of a checkpoint for a dataset that kmax lacks")
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="input size, if not the dataset's")
    parser.add_argument("--resnet", choices=VARIANTS, help="whose ResNet a COCONut checkpoint has")
    parser.add_argument("--images", metavar="FOLDER", help="photographs on which to compare both ResNets")
    what = "configuration of weights of ours that lost theirs: an experiment, and overrides of it"
    parser.add_argument("--experiment", nargs="+", metavar=("NAME", "OVERRIDE"), help=what)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_or_explain(run, parse())

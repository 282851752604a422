"""Published checkpoints become ours, and ours become small or Detectron2's.

    python scripts/convert_weights.py kmax_r50.pth r50.safetensors
    python scripts/convert_weights.py kmax_resnet50_coco_train/ckpt-150000 r50_tf.ckpt
    python scripts/convert_weights.py runs/demo/checkpoints/best.ckpt demo.safetensors --strip
    python scripts/convert_weights.py r50.safetensors r50.pth --to-detectron2

SOURCE is a PyTorch file (.pth, .pkl, .safetensors) or a TensorFlow checkpoint (prefix, .index file or folder); what it
is follows from its names and shapes. TARGET ends in .ckpt or .safetensors; evaluate.py, Predictor.from_checkpoint and
init_from take either as it is.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from kmax.categories import Categories, load_categories
from kmax.checkpoint.detectron2 import to_detectron2
from kmax.checkpoint.foreign import read_entries
from kmax.checkpoint.names import misfit
from kmax.checkpoint.own import CATEGORIES_KEY, CONFIG_KEY, read_checkpoint, write_checkpoint
from kmax.checkpoint.recognize import Recognized, recognize
from kmax.config.build import model_from_options
from kmax.config.compose import compose_config, conf_dir, run_options
from kmax.config.explain import run_or_explain
from kmax.config.options import TrainOptions
from kmax.files import replacing
from kmax.model.options import ModelOptions
from kmax.options import build_options, to_plain

PREFIX = "model."
"""What our module's names begin with; the rest are the model's own."""
DATASETS = ("coco", "cityscapes", "ade20k")


def convert(
    source: Path, target: Path, categories: Categories | None = None, size: Sequence[int] | None = None
) -> Recognized:
    """Translate a published checkpoint; nothing is written unless every entry has its place in the model.

    Args:
        categories: the classes, where their number tells no published dataset.
        size: (H, W) that images are fitted into, where it is not the dataset's.

    Raises:
        FileNotFoundError, ValueError: as `read_entries` and `recognize`; weights that do not fit the model.
    """
    recognized = recognize(read_entries(source), categories)
    options = nearest_options(recognized)
    if size:
        options = replace(options, dataset=replace(options.dataset, size=(size[0], size[1])))
    with torch.device("meta"):
        own = model_from_options(options.backbone, options.model, recognized.categories.num_classes).state_dict()
    problem = misfit(own, recognized.state)
    if problem:
        raise ValueError(f"{source} looks like {recognized}, but does not fit it: {problem}. Is the file mixed up?")
    state = {PREFIX + name: value.to(own[name].dtype) for name, value in recognized.state.items()}
    carried = {CONFIG_KEY: to_plain(options), CATEGORIES_KEY: recognized.categories.to_dict()}
    write_checkpoint(target, {"state_dict": state, **carried})
    return recognized


def nearest_options(recognized: Recognized) -> TrainOptions:
    """The options of the nearest experiment, with the model that the weights tell."""
    dataset = recognized.categories.name
    overrides = ["backbone.pretrained=false", "~callbacks", "logger=none"]
    if dataset not in DATASETS:
        overrides += ["dataset=coco_format", f"dataset.root=data/{dataset}"]
        dataset = "coco"
    name = f"{dataset}_{recognized.backbone}"
    exists = (conf_dir() / "experiment" / f"{name}.yaml").is_file()
    if not exists:
        overrides += [f"name={name}", f"backbone.name={recognized.backbone}"]
    options = run_options(compose_config(name if exists else f"{dataset}_resnet50", *overrides))
    stride = 2 if _fine_stem(recognized) else options.dataset.target_stride
    return replace(
        options,
        model=build_options(ModelOptions, {**to_plain(options.model), **recognized.model}, "model."),
        dataset=replace(options.dataset, target_stride=stride),
    )


def _fine_stem(recognized: Recognized) -> bool:
    """Whether the stem's feature, and so the masks and their targets, have stride 2."""
    stem_of_stride_2 = recognized.family == "deeplab2" and not recognized.backbone.startswith("convnext")
    return stem_of_stride_2 and recognized.model["stem_stage"]


def strip(source: Path, target: Path) -> None:
    """Leave weights, configuration and classes only. Where weights were averaged in training, `state_dict` holds the
    average, and that is what stays."""
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


def run(arguments: argparse.Namespace) -> None:
    """What the command line asks for."""
    source, target = Path(arguments.source), Path(arguments.target)
    if arguments.strip:
        strip(source, target)
    elif arguments.to_detectron2:
        export_detectron2(source, target)
    else:
        categories = load_categories(arguments.categories) if arguments.categories else None
        print(f"recognized: {convert(source, target, categories, arguments.size)}")
    print(f"wrote {target} ({target.stat().st_size / 2**20:.0f} MiB)")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("target", metavar="TARGET")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--strip", action="store_true", help="leave weights and configuration of a run of ours only")
    mode.add_argument("--to-detectron2", action="store_true", help="write a checkpoint of ours for Detectron2")
    parser.add_argument("--categories", metavar="FILE", help="classes of a checkpoint for a dataset that kmax lacks")
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="input size, if not the dataset's")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_or_explain(run, parse())

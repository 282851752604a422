"""A published checkpoint becomes one of ours: recognized, checked entry by entry, written with its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kmax.categories import Categories, load_categories
from kmax.checkpoint.foreign import read_entries
from kmax.checkpoint.names import describe_mismatch
from kmax.checkpoint.own import CATEGORIES_KEY, CONFIG_KEY, SOURCE_KEY, is_ours, read_checkpoint, write_checkpoint
from kmax.checkpoint.published import Published
from kmax.checkpoint.recognize import Recognized, recognize
from kmax.config.build import model_from_options
from kmax.config.compose import compose_config, conf_dir, run_options
from kmax.config.options import TrainOptions
from kmax.config.variants import choose_variant
from kmax.model.options import ModelOptions
from kmax.options import Plain, build_options, to_plain

PREFIX = "model."
"""Prefix of the names in our module; the rest of a name is the model's own."""
DATASETS = ("coco", "cityscapes", "ade20k")
MAX_SIZES = {"max_deeplab_s": (641, 1025), "max_deeplab_l": (1025,)}
"""Input sizes that MaX-DeepLab was published for."""


@dataclass(frozen=True)
class Told:
    """Facts about a checkpoint that do not follow from names and shapes.

    `categories` are the classes, if their number identifies no published dataset; `size` is the (H, W) that images are
    fitted into, if it is not the dataset's; `resnet` is the family of its ResNet, or `images` are files or a folder of
    images from which to tell the family; `entry` is its entry in the model zoo; `experiment` is the configuration of
    weights of ours without one: the experiment's name, and overrides as on the command line.
    """

    categories: Categories | None = None
    size: Sequence[int] | None = None
    resnet: str | None = None
    images: Path | None = None
    entry: Published | None = None
    experiment: Sequence[str] = ()


@dataclass(frozen=True)
class Conversion:
    """What a checkpoint was recognized as, and what was assumed, in one sentence each."""

    recognized: str
    assumed: tuple[str, ...] = ()


def convert(source: Path, target: Path, told: Told | None = None) -> Conversion:
    """Translate a published checkpoint; nothing is written unless every entry fits the model.

    Raises:
        FileNotFoundError, ValueError: as `read_entries` and `recognize`; weights that do not fit the model.
        AmbiguousError: neither names and shapes nor `told` decide.
    """
    told = told or Told()
    entries = read_entries(source)
    if is_ours(entries):
        return _complete(source, entries, target, told)
    recognized = recognize(entries, told.categories)
    size = told.size or (told.entry.size if told.entry else None)
    options = nearest_options(recognized, told.entry, size)
    variant, assumed = choose_variant(options, recognized, source, told.resnet, told.images, told.entry)
    options = replace(options, backbone=replace(options.backbone, family=variant))
    if size:
        options = replace(options, dataset=replace(options.dataset, size=(size[0], size[1])))
    elif recognized.backbone in MAX_SIZES:
        height, width = options.dataset.size
        assumed = (*assumed, f"the input is {height}×{width}, which nothing in the file tells; --size says another")
    state = _fitting(options, recognized.categories, recognized.state, f"{source} looks like {recognized}, but")
    _write(target, options, recognized.categories, state, _provenance(source, recognized, told.entry))
    return Conversion(str(recognized), assumed)


def _fitting(
    options: TrainOptions, categories: Categories, entries: Mapping[str, Tensor], what: str
) -> dict[str, Tensor]:
    """Entries as our module's state, in the model's dtypes; `what` begins the message if they do not fit."""
    with torch.device("meta"):
        own = model_from_options(options.backbone, options.model, categories.num_classes).state_dict()
    problem = describe_mismatch(own, entries)
    if problem:
        raise ValueError(f"{what} does not fit it: {problem}. Is the file mixed up?")
    return {PREFIX + name: value.to(own[name].dtype) for name, value in entries.items()}


def _write(
    target: Path,
    options: TrainOptions,
    categories: Categories,
    state: Mapping[str, Tensor],
    provenance: Plain,
) -> None:
    carried = {CONFIG_KEY: to_plain(options), CATEGORIES_KEY: categories.to_dict(), SOURCE_KEY: provenance}
    write_checkpoint(target, {"state_dict": state, **carried})


def _provenance(source: Path, recognized: Recognized, entry: Published | None) -> Plain:
    if entry is not None:
        return entry.provenance()
    code = {"detectron2": "PyTorch", "deeplab2": "TensorFlow"}[recognized.family]
    return {"model": f"{recognized.backbone} ({code})", "file": source.name}


def nearest_options(
    recognized: Recognized, entry: Published | None = None, size: Sequence[int] | None = None
) -> TrainOptions:
    """The options of the nearest experiment, with the model that follows from the weights."""
    dataset = recognized.categories.name
    overrides = ["backbone.pretrained=false", "~callbacks", "logger=none", *(entry.overrides if entry else ())]
    if dataset not in DATASETS:
        overrides += ["dataset=coco_format", f"dataset.root=data/{dataset}"]
        dataset = "coco"
    name = entry.experiment if entry else f"{dataset}_{recognized.backbone}"
    if not entry and recognized.backbone in MAX_SIZES:
        name = f"coco_{recognized.backbone}_{_max_size(recognized, size)}"
        overrides += [f"dataset={dataset}"] if dataset != "coco" else []
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


def _max_size(recognized: Recognized, size: Sequence[int] | None) -> int:
    """The published input size of MaX-DeepLab nearest to `size`; weights do not determine it; default: the smallest."""
    sizes = MAX_SIZES[recognized.backbone]
    return min(sizes, key=lambda side: abs(side - max(size))) if size else sizes[0]


def _fine_stem(recognized: Recognized) -> bool:
    """Whether the stem's feature, and so the masks and their targets, have stride 2."""
    stem_of_stride_2 = recognized.family == "deeplab2" and not recognized.backbone.startswith("convnext")
    return stem_of_stride_2 and bool(recognized.model.get("stem_stage"))


def _complete(source: Path, entries: Mapping[str, Tensor], target: Path, told: Told) -> Conversion:
    """Complete weights of ours that were saved alone: with the given configuration they are a checkpoint again."""
    if not told.experiment:
        read_checkpoint(source)  # raises if configuration and classes are missing
        raise ValueError(
            f"{source} is a checkpoint of kmax already: --strip or --to-detectron2 say what to make of it."
        )
    options = run_options(compose_config(*told.experiment, "backbone.pretrained=false", "~callbacks", "logger=none"))
    categories = told.categories or load_categories(options.dataset.categories)
    bare = {name.removeprefix(PREFIX): value for name, value in entries.items()}
    state = _fitting(options, categories, bare, f"{source} was taken for {told.experiment[0]}, but")
    _write(target, options, categories, state, {"model": told.experiment[0], "file": source.name})
    return Conversion(f"weights of kmax for {told.experiment[0]}, {len(state)} entries")

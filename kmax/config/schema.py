"""The schema of the configuration.

Sections that describe an object are made from its constructor's own signature, so that each default lives once and a
misspelt key or a wrong type fails while Hydra composes, with a message that names it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields, make_dataclass
from functools import partial
from typing import Any

from omegaconf import MISSING, OmegaConf

from kmax.inference.options import InferenceOptions
from kmax.losses import Criterion
from kmax.metrics import METRICS
from kmax.model import KMaXDeepLab, build_backbone


def _field_type(annotation: Any) -> Any:
    """The nearest type that OmegaConf can check: scalars and tuples of scalars as they are, unions as anything."""
    origin = typing.get_origin(annotation)
    if annotation in (int, float, bool, str):
        return annotation
    if origin is typing.Literal:
        return str
    if origin is tuple:
        return annotation
    arguments = [a for a in typing.get_args(annotation) if a is not type(None)]
    if len(arguments) == 1 and len(typing.get_args(annotation)) == 2:
        return _field_type(arguments[0]) | None
    return Any


def schema_of(function: Callable, name: str, skip: tuple[str, ...] = ()) -> type:
    """A dataclass whose fields are the parameters of `function`, with their types and defaults.

    It belongs to this module under its own name: assign it to a variable called `name`.
    """
    hints = typing.get_type_hints(function)
    fields: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in ("self", *skip):
            continue
        kind, default = _field_type(hints.get(parameter.name, Any)), parameter.default
        if default is inspect.Parameter.empty:
            fields.append((parameter.name, kind, MISSING))
        elif isinstance(default, (list, tuple, dict)):
            fields.append((parameter.name, kind, field(default_factory=partial(type(default), default))))
        else:
            fields.append((parameter.name, kind, default))
    schema = make_dataclass(name, fields)
    schema.__module__ = __name__  # so that launchers, which send the schema to other processes, send its name alone
    return schema


def _optional(field_: Any) -> Any:
    return field_.type | None


BackboneConfig = schema_of(build_backbone, "BackboneConfig", skip=("family",))
ModelConfig = schema_of(KMaXDeepLab.__init__, "ModelConfig", skip=("backbone", "num_classes"))
InferenceConfig = schema_of(InferenceOptions, "InferenceConfig")
InferenceOverrides = make_dataclass(
    "InferenceOverrides", [(f.name, _optional(f), None) for f in fields(InferenceConfig)]
)
LossConfig = schema_of(Criterion.__init__, "LossConfig", skip=("num_classes",))


@dataclass
class DatasetConfig:
    """What is read and how it is augmented. `train` and `val` name a dataset class each (`_target_`). `mask_ap` says
    whose average precision is meant, `boundary_dilation` how wide boundaries are for a part of the diagonal."""

    name: str = MISSING
    root: str = "data"
    categories: str = MISSING
    train: dict[str, Any] = MISSING
    val: dict[str, Any] = MISSING
    size: tuple[int, int] = MISSING
    scale: tuple[float, float] = MISSING
    flip: bool = True
    color_jitter: bool = True
    copy_paste: bool = True
    target_stride: int = 4
    batch_size: int = MISSING
    inference: InferenceConfig = field(default_factory=InferenceConfig)  # type: ignore[valid-type]
    mask_ap: str = "coco"
    boundary_dilation: float = 0.02


@dataclass
class OptimizerConfig:
    """AdamW with a warm-up and polynomial decay; `steps` is the length of the run in optimizer steps. `clip_norm`
    bounds the norm of the gradient; with `ema_decay` validation and checkpoints use an exponential moving average of
    the weights. `fused` asks for AdamW's single kernel; null: without `clip_norm`."""

    lr: float = MISSING
    weight_decay: float = 0.05
    backbone_multiplier: float = 0.1
    steps: int = MISSING
    warmup_steps: int = 5000
    fused: bool | None = None
    clip_norm: float | None = None
    ema_decay: float | None = None


@dataclass
class StrategyConfig:
    """The hardware. `batch_size_per_device` null: the recipe's batch split over the devices; smaller: the rest is
    accumulated (`batch_rule: keep`, nothing that is learned changes), or the batch becomes what the devices hold and
    rate and steps follow it (`batch_rule: scale`)."""

    accelerator: str = "auto"
    devices: Any = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    sync_batchnorm: bool = False
    batch_size_per_device: int | None = None
    batch_rule: str = "keep"
    val_batch_size_per_device: int = 1
    num_workers: int = 4
    channels_last: bool = True
    compile: bool = False


@dataclass
class TrainerConfig:
    """How often the run looks at itself, in optimizer steps."""

    val_every_steps: int = MISSING
    save_every_steps: int = 500
    log_every_steps: int = 50
    limit_val_batches: float | None = None
    num_sanity_val_steps: int = 0
    val_metrics: list[str] = field(default_factory=lambda: ["pq"])
    enable_progress_bar: bool = True


@dataclass
class PlanConfig:
    """What follows from hardware and recipe together; computed, to be read and not to be set."""

    total_devices: int = "${plan:total_devices}"  # type: ignore[assignment]
    batch_size_per_device: int = "${plan:batch_size_per_device}"  # type: ignore[assignment]
    accumulate: int = "${plan:accumulate}"  # type: ignore[assignment]
    effective_batch: int = "${plan:effective_batch}"  # type: ignore[assignment]


@dataclass
class TrainConfig:
    """The root of `train.yaml`."""

    backbone: BackboneConfig = MISSING  # type: ignore[valid-type]
    dataset: DatasetConfig = MISSING
    model: ModelConfig = MISSING  # type: ignore[valid-type]
    loss: LossConfig = field(default_factory=LossConfig)  # type: ignore[valid-type]
    optimizer: OptimizerConfig = MISSING
    strategy: StrategyConfig = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    plan: PlanConfig = field(default_factory=PlanConfig)
    name: str = "kmax"
    seed: int = 1
    init_from: str | None = None
    resume: str | None = "auto"
    metric: str = "val/pq"


def _open_section() -> Any:
    """A section that takes any key without a `+`; `evaluation_config` checks them against the checkpoint's."""
    return OmegaConf.create({}, flags={"struct": False})


@dataclass
class EvaluateConfig:
    """The root of `evaluate.yaml`; `dataset`, `inference` and `strategy` are laid over what the checkpoint carries.
    `limit`: only the first so many images."""

    ckpt: str = MISSING
    dataset: dict[str, Any] = field(default_factory=_open_section)
    inference: InferenceOverrides = field(default_factory=InferenceOverrides)  # type: ignore[valid-type]
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    metrics: list[str] = field(default_factory=lambda: list(METRICS))
    batch_size: int = 1
    save_predictions: bool = False
    limit: int | None = None


@dataclass
class PredictConfig:
    """The root of `predict.yaml`.

    `input`: see `kmax.predict.sources.find_sources`; `output` null: runs/predict/NAME OF THE INPUT; `inference` and
    `size` are laid over what the checkpoint carries; `limit` counts the new images of a run; `num_workers` threads read
    and as many write.
    """

    ckpt: str = MISSING
    input: Any = MISSING
    output: str | None = None
    outputs: list[str] = field(default_factory=lambda: ["overlay", "panoptic", "segments", "video"])
    inference: InferenceOverrides = field(default_factory=InferenceOverrides)  # type: ignore[valid-type]
    size: tuple[int, int] | None = None
    batch_size: int = 1
    limit: int | None = None
    device: str = "auto"
    num_workers: int = 2
    top_instances: int = 100
    overwrite: bool = False


@dataclass
class ExportConfig:
    """The root of `export.yaml`: see scripts/export.py."""

    ckpt: str = MISSING
    format: str = "onnx"
    output: str | None = None
    batch: Any = "dynamic"
    size: tuple[int, int] | None = None
    pictures: str | None = None
    count: int = 10
    tolerance: float = 1e-4


@dataclass
class DemoConfig:
    """The root of `demo.yaml`. `port` null: the first free one from 7860 on; `examples`: a folder of images."""

    ckpt: str = "runs/demo/checkpoints/best.ckpt"
    examples: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    device: str = "auto"
    size: tuple[int, int] | None = None
    max_upload_mb: int = 20
    max_megapixels: float = 40.0

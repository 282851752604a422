"""From the command line to objects: the schema of the configuration and the functions that build from it.

The schema is made from the constructors' own signatures, so that each default lives once and a misspelt key or a
wrong type fails while Hydra composes, with a message that names it.
"""

from __future__ import annotations

import inspect
import os
import sys
import time
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields, make_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ProgressBar
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from kmax.batch_plan import apply_batch_rule, batch_plan, num_devices
from kmax.build import CATEGORIES_KEY, CONFIG_KEY, categories_from_config, model_from_config, read_checkpoint
from kmax.callbacks import AtomicCheckpointIO
from kmax.categories import Categories, load_categories
from kmax.cluster import check_multirun, slurm_resources
from kmax.data.datamodule import PanopticDataModule
from kmax.data.training import Augmentation, PanopticDataset
from kmax.hardware import check_hardware
from kmax.inference import Inference
from kmax.losses import Criterion
from kmax.metrics import METRICS
from kmax.model import KMaXDeepLab, build_backbone


def conf_dir() -> Path:
    """The folder of configuration files: inside an installed wheel, or at the top of a source checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


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
InferenceConfig = schema_of(Inference, "InferenceConfig")
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
    the weights. `fused` asks for AdamW's single kernel; null: on a CPU without `clip_norm`."""

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

    `input`: see `kmax.data.sources.find_sources`; `output` null: runs/predict/NAME OF THE INPUT; `inference` and `size`
    are laid over what the checkpoint carries; `limit` counts the new images of a run; `num_workers` threads read and
    as many write.
    """

    ckpt: str = MISSING
    input: Any = MISSING
    output: str | None = None
    outputs: list[str] = field(default_factory=lambda: ["overlay", "panoptic", "segments", "film"])
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


def run_id() -> str:
    """A name for the run directory that all ranks share: the SLURM job where there is one, else the time."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"slurm-{job}" if job else time.strftime("%Y-%m-%d_%H-%M-%S")


def _in_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def sweep_name() -> str | None:
    """The name of the sweep that this job belongs to, None for a run of its own."""
    return Path(HydraConfig.get().runtime.output_dir).parent.name if _in_sweep() else None


def run_name(*, _root_: Any) -> str:
    """What loggers call the run: `name`, in a sweep with the number of the job."""
    return f"{_root_.name}-{HydraConfig.get().job.num}" if _in_sweep() else str(_root_.name)


def register() -> None:
    """Make the schema and the resolver known to Hydra; calling it again changes nothing."""
    OmegaConf.register_new_resolver("run_id", run_id, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("plan", lambda key, *, _root_: getattr(batch_plan(_root_), key), replace=True)
    OmegaConf.register_new_resolver(
        "slurm", lambda key, *, _root_: getattr(slurm_resources(_root_.strategy), key), replace=True
    )
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="predict_schema", node=PredictConfig)
    store.store(name="export_schema", node=ExportConfig)
    store.store(name="demo_schema", node=DemoConfig)


def command_line(arguments: list[str]) -> list[str]:
    """The arguments as Hydra gets them: `--cfg job` lists the values themselves, not references to other values."""
    joined = " ".join(arguments).replace("--cfg=job", "--cfg job").replace("-c job", "--cfg job")
    listing = "--cfg job" in joined
    return [*arguments, "--resolve"] if listing and "--resolve" not in arguments else arguments


def compose_config(experiment: str | None = None, *overrides: str, root: str = "train") -> Any:
    """The configuration that `train.py experiment=… overrides…` would run with.

    Raises hydra's `ConfigCompositionException` (a `MissingConfigException` for an unknown experiment).
    """
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(root, [f"experiment={experiment}", *overrides] if experiment else list(overrides))


def resolve(config: Any) -> dict[str, Any]:
    """The configuration as plain, resolved Python containers, as a checkpoint carries it, the batch rule applied.

    Raises:
        ValueError: a value is still missing, or the batch does not fit the devices; the message names it.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(config))
    except InterpolationResolutionError:
        batch_plan(config)  # a batch that does not fit says so itself, in one sentence
        raise
    if missing:
        raise ValueError(f"The configuration lacks a value for {', '.join(missing)}: set it, e.g. {missing[0]}=VALUE.")
    plain = typing.cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True, enum_to_str=True))
    return apply_batch_rule(plain) if "plan" in plain else plain


class JobError(Exception):
    """A job of a sweep that failed for a reason that its message gives; the other jobs go on."""


def run_or_explain(function: Callable[[Any], Any], config: Any) -> Any:
    """Call `function(config)`; a user's mistake ends in its one sentence and exit status 1, without a traceback.

    `HYDRA_FULL_ERROR=1` shows the traceback all the same. In a sweep the mistake of one job is a `JobError`, which
    Hydra collects; a sweep that no launcher can run is refused as a whole.
    """
    sweep = _in_sweep()
    try:
        if sweep:
            check_multirun(config.strategy, HydraConfig.get().launcher["_target_"].rpartition(".")[2])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    try:
        return function(config)
    except (ValueError, FileNotFoundError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        # An error from a DataLoader worker carries that worker's traceback; its last line is the sentence.
        sentence = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        for prefix in ("ValueError: ", "FileNotFoundError: "):
            sentence = sentence.removeprefix(prefix)
        print(f"error: {sentence}\n(HYDRA_FULL_ERROR=1 shows where it came from)", file=sys.stderr)
        if sweep:
            raise JobError(sentence) from None
        sys.exit(1)


def build_datamodule(config: dict[str, Any]) -> PanopticDataModule:
    """The data of a run: datasets from their `_target_`, augmentation from the dataset section.

    Raises:
        FileNotFoundError, ValueError: files that are missing or disagree.
    """
    dataset, strategy = config["dataset"], config["strategy"]
    categories = categories_from_config(config)
    return PanopticDataModule(
        train=partial(_dataset, dataset["train"], categories),
        val=partial(_dataset, dataset["val"], categories),
        augmentation=Augmentation(
            size=(dataset["size"][0], dataset["size"][1]),
            scale=(dataset["scale"][0], dataset["scale"][1]),
            flip=dataset["flip"],
            color_jitter=dataset["color_jitter"],
            copy_paste=dataset["copy_paste"],
            target_stride=dataset["target_stride"],
            min_labelled_pixels=config["loss"]["samples"],
        ),
        batch_size=batch_plan(config).batch_size_per_device,
        val_batch_size=strategy["val_batch_size_per_device"],
        num_workers=strategy["num_workers"],
        seed=config["seed"],
    )


def _dataset(options: dict[str, Any], categories: Categories) -> PanopticDataset:
    make = instantiate({**options, "_partial_": True}, _convert_="all")
    try:
        return make(categories=categories)
    except TypeError as error:
        raise ValueError(f"dataset: {options['_target_']} does not take these options ({error}).") from error


def build_trainer(config: dict[str, Any], **options: Any) -> Trainer:
    """The Lightning trainer of a run; `options` go over what the configuration says."""
    check_hardware(config)
    strategy, trainer = config["strategy"], config["trainer"]
    accumulate = batch_plan(config).accumulate
    arguments: dict[str, Any] = {
        "accelerator": strategy["accelerator"],
        "devices": strategy["devices"],
        "num_nodes": strategy["num_nodes"],
        "strategy": strategy["strategy"],
        "precision": strategy["precision"],
        "sync_batchnorm": strategy["sync_batchnorm"],
        "use_distributed_sampler": False,
        "max_steps": config["optimizer"]["steps"],
        "accumulate_grad_batches": accumulate,
        "gradient_clip_val": config["optimizer"].get("clip_norm"),
        "val_check_interval": trainer["val_every_steps"] * accumulate,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": trainer["log_every_steps"],
        "limit_val_batches": trainer["limit_val_batches"],
        "num_sanity_val_steps": trainer["num_sanity_val_steps"],
        "enable_progress_bar": trainer["enable_progress_bar"],
        "callbacks": _callbacks(config),
        "plugins": [AtomicCheckpointIO()],
        "logger": [instantiate(logger) for logger in config["logger"].values()] or False,
    }
    return Trainer(**{**arguments, **options})


def _callbacks(config: dict[str, Any]) -> list[Callback]:
    """The callbacks of a run, without a progress bar where `trainer.enable_progress_bar` forbids it."""
    callbacks = [instantiate(callback) for callback in config["callbacks"].values()]
    decay = config["optimizer"].get("ema_decay")
    if decay is not None:
        callbacks.append(EMAWeightAveraging(decay=decay))
    wanted = config["trainer"]["enable_progress_bar"]
    return [callback for callback in callbacks if wanted or not isinstance(callback, ProgressBar)]


def evaluation_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration a checkpoint was trained with, and its categories, under what evaluation says: its hardware,
    batch size, metrics and whatever `dataset.…` and `inference.…` name. With another `dataset.root`, the paths below
    move along.

    Raises:
        FileNotFoundError, ValueError: the checkpoint, or a key or value that its configuration does not take.
    """
    checkpoint = read_checkpoint(config["ckpt"])
    trained, dataset = checkpoint[CONFIG_KEY], {k: v for k, v in config["dataset"].items() if v is not None}
    inference = {**dataset.pop("inference", {}), **{k: v for k, v in config["inference"].items() if v is not None}}
    merged = OmegaConf.structured(DatasetConfig)
    for name, section, part in (
        ("dataset", merged, _moved(trained["dataset"], dataset.get("root"))),
        ("dataset", merged, dataset),
        ("inference", merged.inference, inference),
    ):
        try:
            section.merge_with(part)
        except OmegaConfBaseException as error:
            sentence = str(error).splitlines()[0].rstrip(".")
            raise ValueError(f"evaluate.py: {name}: {sentence}. Known keys: {', '.join(section)}.") from error
    strategy = {**config["strategy"], "val_batch_size_per_device": config["batch_size"], "batch_size_per_device": 1}
    # Nothing is trained: one image per device, so that any number of devices will do.
    merged.batch_size = num_devices(strategy["devices"], strategy["accelerator"]) * strategy["num_nodes"]
    return {
        **trained,
        "dataset": OmegaConf.to_container(merged, resolve=True),
        "strategy": strategy,
        "trainer": {**trained["trainer"], "val_metrics": config["metrics"]},
        CATEGORIES_KEY: checkpoint[CATEGORIES_KEY],
    }


def _moved(section: dict[str, Any], root: str | None) -> dict[str, Any]:
    """A dataset section whose paths below its own root lie below another one."""
    old = str(section["root"])

    def move(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: move(item) for key, item in value.items()}
        inside = isinstance(value, str) and (value == old or value.startswith(f"{old}/"))
        return f"{root}{value[len(old) :]}" if inside else value

    return section if root is None else move(section)


def build_model(experiment: str | None = None, *overrides: str) -> KMaXDeepLab:
    """The model of an experiment, randomly initialised, without any download.

    Args:
        experiment: the name of a file in conf/experiment; None for the defaults of `train.py`.
        overrides: as on the command line, e.g. `"model.num_queries=64"`.
    """
    config = compose_config(experiment, *overrides)
    sections = {"backbone": dict(config.backbone), "model": OmegaConf.to_container(config.model, resolve=True)}
    return model_from_config(sections, load_categories(config.dataset.categories).num_classes, pretrained=False)

"""From the command line to objects: composing the configuration, and the functions that build from it."""

from __future__ import annotations

import os
import sys
import time
import typing
from collections.abc import Callable
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
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.strategies import DDPStrategy, Strategy
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from kmax.batch_plan import apply_batch_rule, batch_plan, num_devices
from kmax.build import CATEGORIES_KEY, CONFIG_KEY, categories_from_config, model_from_config, read_checkpoint
from kmax.callbacks import AtomicCheckpointIO, MovingAverage
from kmax.categories import Categories, load_categories
from kmax.cluster import check_multirun, slurm_resources
from kmax.data.datamodule import PanopticDataModule
from kmax.data.training import Augmentation, PanopticDataset
from kmax.hardware import check_hardware
from kmax.model import KMaXDeepLab
from kmax.schema import DatasetConfig, DemoConfig, EvaluateConfig, ExportConfig, PredictConfig, TrainConfig


def conf_dir() -> Path:
    """The folder of configuration files: inside an installed wheel, or at the top of a source checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


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
        "strategy": _distribution(strategy),
        "precision": strategy["precision"],
        "benchmark": not options.get("deterministic"),  # cuDNN looks for its fastest algorithms: shapes repeat
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


def _distribution(strategy: dict[str, Any]) -> str | Strategy:
    """Lightning's strategy. Under DDP gradients lie in its buckets; buffers are sent along only where ranks would
    differ in them, which synchronized batch norms do not."""
    if strategy["strategy"] != "ddp":
        return str(strategy["strategy"])
    return DDPStrategy(broadcast_buffers=not strategy["sync_batchnorm"], gradient_as_bucket_view=True)


def _callbacks(config: dict[str, Any]) -> list[Callback]:
    """The callbacks of a run, without a progress bar where `trainer.enable_progress_bar` forbids it."""
    callbacks = [instantiate(callback) for callback in config["callbacks"].values()]
    decay = config["optimizer"].get("ema_decay")
    if decay is not None:
        callbacks.append(MovingAverage(decay))
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

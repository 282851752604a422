"""From the command line to objects: composing the configuration, and the functions that build from it."""

from __future__ import annotations

import os
import sys
import time
import typing
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from kmax.config.grammar import grammar_mistake
from kmax.config.schema import DemoConfig, EvaluateConfig, ExportConfig, PredictConfig, TrainConfig
from kmax.config.sentences import unset_variable
from kmax.strategy.batch_plan import apply_batch_rule, batch_plan
from kmax.strategy.slurm import slurm_resources


def conf_dir() -> Path:
    """The folder of configuration files: inside an installed wheel, or at the top of a source checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def run_id() -> str:
    """A name for the run directory that all ranks share: the SLURM job where there is one, else the time."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"slurm-{job}" if job else time.strftime("%Y-%m-%d_%H-%M-%S")


def in_sweep() -> bool:
    """Whether this process is a job of a sweep (`train.py -m`)."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def sweep_name() -> str | None:
    """The name of the sweep that this job belongs to, None for a run of its own."""
    return Path(HydraConfig.get().runtime.output_dir).parent.name if in_sweep() else None


def run_name(*, _root_: Any) -> str:
    """What loggers call the run: `name`, in a sweep with the number of the job."""
    return f"{_root_.name}-{HydraConfig.get().job.num}" if in_sweep() else str(_root_.name)


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
    """The arguments as Hydra gets them: `--cfg job` lists the values themselves, not references to other values.

    Arguments that cannot be read end the program with a sentence that says how to write them.
    """
    mistake = grammar_mistake(arguments[1:]) or unset_variable(arguments[1:])
    if mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(1)
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

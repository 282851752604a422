"""From the command line, or from Python, to options: composing the configuration with Hydra."""

from __future__ import annotations

import os
import re
import sys
import time
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from kmax.commands import programs_dir
from kmax.config import finetune
from kmax.config.checks import check_run, plan_of, resources_of
from kmax.config.grammar import grammar_mistake
from kmax.config.help import help_text, wants_help
from kmax.config.home import at_home, home_in_arguments
from kmax.config.options import TrainOptions
from kmax.config.schema import store_schemas
from kmax.config.sentences import unset_variable
from kmax.files import claim_folder
from kmax.options import Plain, build_options
from kmax.strategy.batch_plan import BatchPlan
from kmax.strategy.options import StrategyOptions

T = TypeVar("T")
SHAPES = ("shapes", "demo")
"""Experiments on the built-in dataset, which suit no other dataset."""


def conf_dir() -> Path:
    """The folder of configuration files, beside the programs."""
    return programs_dir() / "conf"


def run_id(environment: Mapping[str, str] | None = None) -> str:
    """A name for the run directory that all ranks and all restarts share: the SLURM job or torchrun's `--rdzv-id` if
    there is one, otherwise the time.

    Raises:
        ValueError: another launcher has started several ranks, whose clocks may differ.
    """
    variables = os.environ if environment is None else environment
    job, elastic = variables.get("SLURM_JOB_ID"), variables.get("TORCHELASTIC_RUN_ID", "none")
    if job:
        return f"slurm-{job}"
    if elastic != "none":
        return f"torchrun-{re.sub(r'[^A-Za-z0-9_.-]', '_', elastic)}"
    if int(variables.get("WORLD_SIZE", "1")) > 1 or "NODE_RANK" in variables:
        raise ValueError(
            "Several ranks would name their folder by their own clocks: give all of them the same one, e.g. "
            "hydra.run.dir=runs/NAME/1 (torchrun: --rdzv-id=NAME does)."
        )
    return time.strftime("%Y-%m-%d_%H-%M-%S")


def run_dir(parent: str, prefix: str = "") -> str:
    """A folder below `parent` for a new run, claimed for it alone: two runs that start in one second get two. The
    processes of one job (of SLURM, also when it is requeued; of torchrun) share theirs."""
    name = f"{prefix}{run_id()}"
    shared = "SLURM_JOB_ID" in os.environ or os.environ.get("TORCHELASTIC_RUN_ID", "none") != "none"
    return f"{parent}/{name}" if shared else str(claim_folder(Path(parent), name))


def in_sweep() -> bool:
    """Whether this process is a job of a sweep (`train.py -m`)."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def sweep_name() -> str | None:
    """The name of the sweep that this job belongs to, None for a run of its own."""
    return Path(HydraConfig.get().runtime.output_dir).parent.name if in_sweep() else None


def run_name(*, _root_: DictConfig) -> str:
    """The name of the run for loggers: `name`, in a sweep with the number of the job."""
    return f"{_root_.name}-{HydraConfig.get().job.num}" if in_sweep() else str(_root_.name)


def _plan(key: str, *, _root_: DictConfig) -> object:
    return getattr(_plan_of(_root_), key)


def _slurm(key: str, *, _root_: DictConfig) -> object:
    return getattr(resources_of(strategy_options(_root_)), key)


def strategy_options(config: DictConfig) -> StrategyOptions:
    """The section `strategy` of a composed configuration."""
    return build_options(StrategyOptions, _plain(config.strategy), "strategy.")


def _plan_of(config: DictConfig) -> BatchPlan:
    return plan_of(strategy_options(config), int(config.dataset.batch_size))


def _plain(config: DictConfig) -> Plain:
    plain = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    return typing.cast("Plain", at_home(plain))


def register() -> None:
    """Register the schemas and the resolvers with Hydra; calling it again changes nothing."""
    OmegaConf.register_new_resolver("run_id", lambda: run_id(), use_cache=True, replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("plan", _plan, replace=True)
    OmegaConf.register_new_resolver("slurm", _slurm, replace=True)
    OmegaConf.register_new_resolver("finetune", finetune.value, replace=True)
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    store_schemas()


def command_line(arguments: list[str], program: str = "train", description: str = "") -> list[str]:
    """The arguments as Hydra gets them; with `--help` the program's options are printed, and it ends.

    `--cfg job` lists the values themselves, not references to other values; `GROUP=null` leaves a group out. Arguments
    that cannot be read end the program with a sentence that says how to write them.
    """
    if wants_help(arguments):
        print(help_text(program, description, conf_dir()))
        sys.exit(0)
    arguments = home_in_arguments(arguments)
    mistake = grammar_mistake(arguments[1:]) or unset_variable(arguments[1:])
    if mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(1)
    joined = " ".join(arguments).replace("--cfg=job", "--cfg job").replace("-c job", "--cfg job")
    listing = "--cfg job" in joined and "--resolve" not in arguments
    return [*arguments[:1], *without_null_groups(arguments[1:]), *(["--resolve"] if listing else [])]


def without_null_groups(overrides: Sequence[str]) -> list[str]:
    """Overrides with `experiment=null` as Hydra can read it; groups that are left out by default need nothing."""
    kept = [override for override in overrides if override not in ("sweep=null", "debug=null")]
    return ["~experiment" if override == "experiment=null" else override for override in kept]


def compose_config(experiment: str | None = None, *overrides: str, root: str = "train") -> DictConfig:
    """The configuration that `train.py experiment=… overrides…` would run with.

    Raises hydra's `ConfigCompositionException` (a `MissingConfigException` for an unknown experiment).
    """
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        given = [f"experiment={experiment}", *overrides] if experiment else list(overrides)
        return compose(root, without_null_groups(given))


def read_options(kind: type[T], config: DictConfig) -> T:
    """A composed configuration as options; every value and range is checked, and nothing is missing.

    Raises:
        ValueError: a value is still missing, or cannot be; the message names it.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(config))
    except InterpolationResolutionError as error:
        sentence = str(error).splitlines()[0].split("while resolving interpolation: ")[-1]
        raise ValueError(sentence) from error  # the message of a resolver, e.g. that a file is missing
    if missing:
        raise ValueError(f"The configuration lacks a value for {', '.join(missing)}: set it, e.g. {missing[0]}=VALUE.")
    return build_options(kind, _plain(config))


def run_options(config: DictConfig) -> TrainOptions:
    """The options of a training run: those of the configuration, checked against each other, the batch rule applied.

    Raises:
        ValueError: as `read_options`, or options that contradict each other.
    """
    check_mix()
    return check_run(read_options(TrainOptions, config))


def chosen(group: str) -> str | None:
    """The file of a configuration group that this job was composed with; None outside of a job of Hydra's."""
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None


def check_mix() -> None:
    """Refuse experiments on the built-in shapes with another dataset: `dataset=coco` alone would mix the two.

    Raises:
        ValueError: the message names the experiments of that dataset.
    """
    experiment, dataset = chosen("experiment"), chosen("dataset")
    asked = HydraConfig.initialized() and any(o.startswith("experiment=") for o in HydraConfig.get().overrides.task)
    if experiment in SHAPES and dataset != "shapes" and not asked:
        files = sorted((conf_dir() / "experiment").glob(f"{dataset}_*.yaml"))
        names = ", ".join(file.stem for file in files) or "coco_resnet50"
        raise ValueError(
            f"dataset={dataset} with experiment={experiment} would train on {dataset} by the recipe of the built-in "
            f"shapes: choose an experiment, e.g. one of {names}, or experiment=null and every option yourself."
        )

"""The SLURM resources of a strategy, and the launchers of a sweep that can start it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from kmax.options import OptionError
from kmax.strategy.batch_plan import num_devices
from kmax.strategy.options import StrategyOptions

GPUS = ("gpu", "cuda")
ONE_PROCESS_LAUNCHERS = ("BasicLauncher", "JoblibLauncher", "LocalLauncher")
"""Launchers of Hydra that call the training function in one process per job."""


@dataclass(frozen=True)
class SlurmResources:
    """sbatch's options of the same names; one task per device, as Lightning wants it."""

    nodes: int
    tasks_per_node: int
    cpus_per_task: int
    gpus_per_node: int | None


def slurm_resources(strategy: StrategyOptions) -> SlurmResources:
    """Nodes, tasks, CPUs and GPUs for a strategy section: one CPU per loader worker and one for the task itself.

    Raises:
        OptionError: the number of devices depends on the machine.
    """
    if str(strategy.devices) in ("-1", "auto"):
        raise OptionError(f"devices={strategy.devices} cannot be queued: give their number, e.g. 8.")
    devices = num_devices(strategy.devices, strategy.accelerator)
    gpus = devices if strategy.accelerator in GPUS else None
    return SlurmResources(strategy.num_nodes, devices, strategy.num_workers + 1, gpus)


def check_multirun(
    strategy: StrategyOptions, launcher: str, environment: Mapping[str, str] | os._Environ[str] = os.environ
) -> None:
    """Refuse a sweep whose jobs would start further processes by repeating the command line of the whole sweep.

    Args:
        strategy: the section of the configuration.
        launcher: class name of Hydra's launcher.

    Raises:
        ValueError: several devices in a job that is one process; the message names the ways out.
    """
    several = num_devices(strategy.devices, strategy.accelerator) * strategy.num_nodes > 1
    started = "LOCAL_RANK" in environment or int(environment.get("SLURM_NTASKS", 1)) > 1
    if several and not started and launcher in ONE_PROCESS_LAUNCHERS and "notebook" not in strategy.strategy:
        raise ValueError(
            "A sweep on this launcher gives each job one process, and a strategy with several devices would start the "
            "others by repeating the whole sweep: choose hydra/launcher=slurm_v100, or one device per job with "
            "strategy=gpu, or start the jobs one by one without -m."
        )

"""The folder of a run: printed first, with a log of the output, and removed if the start has failed."""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from kmax.config.compose import in_sweep
from kmax.console import recording

RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
"""Environment variables in which launchers give the rank of a process."""


def is_first_rank() -> bool:
    """Whether this process is rank 0, as far as is known before the ranks are connected."""
    return next((os.environ[name] for name in RANKS if name in os.environ), "0") == "0"


def shown(path: Path) -> Path:
    """The shortest form of a path: relative to the current folder if it is below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def run_folder() -> Iterator[None]:
    """Inside the block, output also goes to `JOB.log` in the folder of the run (`train.log`).

    The first line names the folder. If the block ends in an error before anything else was written there, the folder
    is removed again; those of a sweep's jobs stay, with the reason in their log.
    """
    hydra = HydraConfig.get() if HydraConfig.initialized() else None  # a script without Hydra has no folder either
    if hydra is None or hydra.output_subdir is None or not is_first_rank():
        with recording(None):
            yield
        return
    folder = Path(hydra.runtime.output_dir)
    log = f"{hydra.job.name}.log"
    try:
        with recording(folder / log):
            print(f"run folder · {shown(folder)}", flush=True)
            yield
    except (SystemExit, KeyboardInterrupt):
        if not in_sweep():
            remove_if_unused(folder, (hydra.output_subdir, log))
        raise
    except Exception:  # an error of ours, which Hydra will show
        with (folder / log).open("a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        raise


def remove_if_unused(folder: Path, own: tuple[str, ...]) -> None:
    """Remove the folder of a run, and those above that are empty then, if it holds nothing but the names in `own`."""
    if not folder.is_dir() or any(child.name not in own for child in folder.iterdir()):
        return
    shutil.rmtree(folder, ignore_errors=True)
    for above in folder.parents:
        if above == Path.cwd() or not above.is_relative_to(Path.cwd()):
            return
        try:
            above.rmdir()
        except OSError:  # something else is there
            return

"""Queue a training job on SLURM: nodes, tasks and GPUs come from the strategy.

    python scripts/slurm/submit.py experiment=coco_resnet50 strategy=ddp_multinode dataset.root=/data/coco
    python scripts/slurm/submit.py --time=12:00:00 --partition=gpu experiment=coco_resnet50_8gpu strategy=ddp \
        strategy.devices=8

Whatever begins with `--` goes to sbatch (write `--name=value`), everything else to train.py. The configuration is
composed first, so that a typo fails here and not after hours in the queue. `--dry-run` prints the command.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException

from kmax.config.checks import plan_of, resources_of
from kmax.config.compose import compose_config, strategy_options

ROOT = Path(__file__).resolve().parents[2]
LOGS = "runs/slurm"


def command(arguments: Sequence[str]) -> tuple[list[str], str]:
    """The sbatch command for a command line of this script, and the sentence that describes the batch.

    Raises:
        ValueError, HydraException: a configuration that does not compose or cannot be queued.
    """
    options = [a for a in arguments if a.startswith("--")]
    overrides = [a for a in arguments if not a.startswith("--")]
    config = compose_config(None, *overrides)
    strategy = strategy_options(config)
    plan = str(plan_of(strategy, config.dataset.batch_size))
    asked = resources_of(strategy)
    own = [
        f"--job-name={config.name}",
        f"--chdir={Path.cwd()}",
        f"--output={LOGS}/%x-%j.out",
        f"--nodes={asked.nodes}",
        f"--ntasks-per-node={asked.tasks_per_node}",
        f"--cpus-per-task={asked.cpus_per_task}",
        f"--gres={f'gpu:{asked.gpus_per_node}' if asked.gpus_per_node else 'none'}",
    ]
    return ["sbatch", *own, *options, str(ROOT / "scripts/slurm/train.sbatch"), *overrides], plan


def main(arguments: Sequence[str]) -> None:
    """The command line."""
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.exit(__doc__)
    try:
        words, plan = command([a for a in arguments if a != "--dry-run"])
    except (ValueError, HydraException) as error:
        sentences = [str(e).splitlines()[0] for e in (error, error.__cause__) if str(e or "")]
        sys.exit(f"error: {' '.join(sentences)}")
    print(f"{plan}\n{shlex.join(words)}", flush=True)
    if "--dry-run" in arguments:
        return
    Path(LOGS).mkdir(parents=True, exist_ok=True)
    try:
        environment = {**os.environ, "KMAX_PYTHON": sys.executable, "KMAX_TRAIN": str(ROOT / "train.py")}
        done = subprocess.run(words, env=environment, check=False)
    except FileNotFoundError:
        sys.exit("error: there is no sbatch on this machine: run this where jobs are submitted, or use --dry-run.")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])

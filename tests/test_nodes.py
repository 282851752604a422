"""Two "nodes" of one process each, on this machine, as launchers other than SLURM start them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from conftest import ROOT
from kmax.config.compose import run_id
from small_run import OVERRIDES
from test_distributed import free_port

OPTIONS = (
    *(option for option in OVERRIDES if not option.startswith(("optimizer.steps", "strategy.batch_size"))),
    "optimizer.steps=8",
    "strategy.num_nodes=2",
    "strategy.strategy=ddp",
    "strategy.sync_batchnorm=true",
    "~callbacks.panels",
)


def start(
    command: Sequence[str], folder: Path, node: int, options: Sequence[str] = (), **env: str
) -> subprocess.Popen[str]:
    """`train.py` on a node; its output lies in FOLDER/NODE.log."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC")) and k != "WORLD_SIZE"}
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    variables = {**clean, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **env}
    with (folder / f"{node}.log").open("w") as log:
        arguments = [*command, str(ROOT / "train.py"), *OPTIONS, *options, f"hydra.run.dir={folder}"]
        return subprocess.Popen(arguments, cwd=folder, env=variables, stdout=log, stderr=log, text=True)


def finish(nodes: Sequence[subprocess.Popen[str]], folder: Path) -> str:
    """Wait for all nodes; the output of rank 0."""
    try:
        codes = [node.wait(timeout=400) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    logs = [(folder / f"{i}.log").read_text() for i in range(len(nodes))]
    assert codes == [0, 0], "\n\n".join(log[-3000:] for log in logs)
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8
    return "".join(logs)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["plain", "PyTorchJob"])
def test_nodes_meet_at_an_address(launcher: str, tmp_path: Path) -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    kubernetes = {"KUBERNETES_PORT": "tcp://127.0.0.1:443", "WORLD_SIZE": "2"}
    nodes = []
    for node in range(2):
        own = {"NODE_RANK": str(node)}  # in a PyTorchJob: NODE_RANK=$RANK python train.py …
        own |= {} if launcher == "plain" else {**kubernetes, "RANK": str(node)}
        nodes.append(start([sys.executable], tmp_path, node, **address, **own))
    assert "effective batch 4 = 2 devices × 2 per device" in finish(nodes, tmp_path)


def test_ranks_and_restarts_share_a_folder() -> None:
    assert run_id({"SLURM_JOB_ID": "7", "TORCHELASTIC_RUN_ID": "x"}) == "slurm-7"
    assert run_id({"TORCHELASTIC_RUN_ID": "some/job 1", "WORLD_SIZE": "2"}) == "torchrun-some_job_1"
    assert run_id({"WORLD_SIZE": "1"})[:2] == "20"
    for environment in ({"WORLD_SIZE": "2"}, {"NODE_RANK": "0"}, {"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}):
        with pytest.raises(ValueError, match=r"give all of them the same one, e.g. hydra.run.dir"):
            run_id(environment)

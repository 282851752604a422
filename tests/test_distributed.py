"""Two processes on gloo: equal to one, never waiting for each other in vain."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import distributed_worker
from conftest import ROOT
from small_run import one_thread


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.Popen[str], float]:
    """The folder of two ranks that ran until one froze, rank 0 (ended), and how long it took to end, in seconds."""
    folder = tmp_path_factory.mktemp("pair")
    common = {
        **{key: value for key, value in os.environ.items() if not key.startswith("SLURM_")},
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
        "OMP_NUM_THREADS": "1",
    }
    worker = str(Path(distributed_worker.__file__))
    ranks = []
    for rank in range(2):
        with (folder / f"rank{rank}.log").open("w") as log:
            command = [sys.executable, worker, str(folder)]
            environment = {**common, "LOCAL_RANK": str(rank), "RANK": str(rank)}
            ranks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True))
    try:
        ranks[0].wait(timeout=500)
        ended = time.time()
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    printed = (folder / "rank0.log").read_text()
    assert "freezing" in printed, printed[-3000:] + (folder / "rank1.log").read_text()[-3000:]
    return folder, ranks[0], ended - float(printed.split("freezing ")[1].split()[0])


@pytest.mark.timeout(600)
def test_two_ranks_of_two_images_equal_one_of_four(pair: tuple, tmp_path: Path) -> None:
    folder = pair[0]
    with one_thread():
        metric = distributed_worker.equal(tmp_path)
    one, two = (
        torch.load(path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for path in (tmp_path, folder / "equal")
    )
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-9, atol=1e-9, msg=name)
    assert f"metric {metric}" in (folder / "rank0.log").read_text()


def test_one_odd_rank_neither_stops_nor_spoils_the_other(pair: tuple) -> None:
    folder = pair[0]
    checkpoint = torch.load(folder / "odd/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert checkpoint["callbacks"]["NonFiniteGuard"] == {"skipped": 1, "in_a_row": 0}
    steps = [state["step"] for state in checkpoint["optimizer_states"][0]["state"].values()]
    assert {float(step) for step in steps} == {3.0}  # of four
    (dump,) = (folder / "odd").glob("nonfinite-*.json")
    description = json.loads(dump.read_text())
    assert description["rank"] == 1
    assert description["step"] == 2
    assert len(description["draws (epoch, index) of each batch"][0]) == 2
    assert len(checkpoint["random_states"]) == 2


def test_a_frozen_rank_ends_the_job(pair: tuple) -> None:
    folder, rank0, seconds = pair
    assert rank0.returncode not in (0, None)
    assert "rank 1 has not been heard of for 6 s" in (folder / "rank0.log").read_text()
    assert seconds < 60

"""Workers end with the process that they work for, however it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT

PROGRAM = """
import os, sys, time
from torch.utils.data import DataLoader
from kmax.data.loader import start_worker

class Slow:
    def __len__(self): return 100
    def __getitem__(self, index):
        print(os.getpid(), flush=True)
        time.sleep(600)

if __name__ == "__main__":
    next(iter(DataLoader(Slow(), num_workers=2, worker_init_fn=start_worker)))
"""


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
def test_workers_in_the_midst_of_an_image_end_with_a_killed_parent(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(alive(worker) for worker in workers)
        parent.send_signal(signal.SIGINT)  # as Ctrl-C would, but to the parent alone: workers are asked next
        for worker in workers:
            os.kill(worker, signal.SIGINT)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        end = time.monotonic() + 20
        while any(alive(worker) for worker in workers) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(alive(worker) for worker in workers)

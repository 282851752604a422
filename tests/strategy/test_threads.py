"""As many threads as there are free cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kmax.strategy import threads
from kmax.strategy.threads import FreeCores, threads_for

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
pytestmark = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="cores are counted on Linux only")


def write_stat(path: Path, seconds: float) -> None:
    """/proc/stat of cores that have all worked `seconds`, and of another machine part that has worked forever."""
    ticks = round(seconds * os.sysconf("SC_CLK_TCK"))
    lines = [f"cpu{core} {ticks} 0 0 99 0 0 0 0 0 0" for core in CORES]
    path.write_text("\n".join(["cpu 1 2 3 4 5 6 7 8 0 0", *lines, "cpu9999 77777777 0 0 0 0 0 0 0 0 0", "intr 1 2"]))


@pytest.mark.parametrize(("worked", "free"), [(0.0, 1.0), (10.0, 0.0), (5.0, 0.5)])
def test_cores_that_others_use_are_not_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worked: float, free: float
) -> None:
    """Ten seconds pass, in which this process does nothing."""
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(threads.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(threads.time, "process_time", lambda: 3.0)
    write_stat(tmp_path / "stat", 50)
    count = FreeCores(tmp_path / "stat", tmp_path / "no quota")
    write_stat(tmp_path / "stat", 50 + worked)
    assert count() == pytest.approx(free * len(CORES), abs=0.01)


def test_own_work_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, own = iter([100.0, 110.0]), iter([3.0, 3.0 + 10 * len(CORES)])
    monkeypatch.setattr(threads.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(threads.time, "process_time", lambda: next(own))
    write_stat(tmp_path / "stat", 50)
    count = FreeCores(tmp_path / "stat", tmp_path / "no quota")
    write_stat(tmp_path / "stat", 60)
    assert count() == pytest.approx(len(CORES), abs=0.01)


@pytest.mark.parametrize(("text", "limit"), [("50000 100000\n", 0.5), ("max 100000\n", None)])
def test_the_limit_of_a_container_is_the_most(tmp_path: Path, text: str, limit: float | None) -> None:
    write_stat(tmp_path / "stat", 50)
    (tmp_path / "cpu.max").write_text(text)
    assert FreeCores(tmp_path / "stat", tmp_path / "cpu.max")() == pytest.approx(limit or len(CORES))


@pytest.mark.parametrize(("free", "most", "expected"), [(0.1, 4, 1), (1.4, 2, 1), (1.6, 2, 2), (9.0, 4, 4)])
def test_threads_are_free_cores_rounded(free: float, most: int, expected: int) -> None:
    assert threads_for(free, most) == expected


@pytest.mark.long
def test_a_busy_core_costs_a_thread_unless_the_user_chose() -> None:
    """With all cores kept busy by others, a process chooses one thread, but keeps a number that was given."""
    code = "import torch; torch.set_num_threads(3); from kmax.strategy.threads import fit_threads; print(fit_threads())"
    clean = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in CORES]
    try:
        runs = [
            subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
            for env in (clean, {**clean, "OMP_NUM_THREADS": "3"})
        ]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert [int(text) for text in runs] == [1, 3]
    assert torch.get_num_threads() >= 1

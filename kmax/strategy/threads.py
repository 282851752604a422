"""As many threads as there are free cores.

PyTorch starts a thread per core, whatever else runs there. At the end of each parallel region all threads wait for the
slowest, and waiting threads keep their core busy: where other processes need cores, too, every region lasts until the
scheduler comes back to its last thread. Fewer threads are then several times faster.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

_STAT, _QUOTA = Path("/proc/stat"), Path("/sys/fs/cgroup/cpu.max")
_GLANCE = 0.2  # seconds


@dataclass(frozen=True)
class _Moment:
    """Seconds of this machine up to a moment: on the clock, of work on the cores we may use, of work of our own."""

    clock: float
    busy: float
    own: float


class FreeCores:
    """Counts the cores that other processes leave, between one call and the next.

    Args:
        stat: the kernel's counters, in the format of /proc/stat.
        quota: the limit of a container, in the format of cpu.max; need not exist.

    Raises:
        OSError: there are no such counters (systems other than Linux).
    """

    def __init__(self, stat: Path = _STAT, quota: Path = _QUOTA) -> None:
        self._stat, self._quota = stat, quota
        self._cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
        self._last = self._moment()

    def __call__(self) -> float:
        """Cores that were free, or used by this process, since the last call; a container's limit is the most."""
        now, before = self._moment(), self._last
        self._last = now
        elapsed = max(now.clock - before.clock, 1e-6)
        others = max(0.0, (now.busy - before.busy) - (now.own - before.own)) / elapsed
        return max(0.0, min(len(self._cores) - others, self._limit()))

    def _moment(self) -> _Moment:
        busy = 0.0
        for line in self._stat.read_text().splitlines():
            name, *counts = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in self._cores:
                user, nice, system, _idle, _iowait, irq, softirq, steal = (int(count) for count in counts[:8])
                busy += user + nice + system + irq + softirq + steal
        return _Moment(time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), time.process_time())

    def _limit(self) -> float:
        try:
            quota, period = self._quota.read_text().split()
            return int(quota) / int(period)
        except (OSError, ValueError):  # no container, or one without a limit ("max 100000")
            return float("inf")


def threads_for(free: float, most: int) -> int:
    """Threads for `free` cores: rounded, from 1 to `most`."""
    return max(1, min(most, int(free + 0.5)))


def threads_are_given() -> bool:
    """Whether the user, or whoever started this process, has chosen the number of threads."""
    return any(os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))


def fit_threads() -> int:
    """Look at the machine for a fifth of a second, and use as many threads as there are free cores.

    The number of PyTorch is the most; with `OMP_NUM_THREADS` set, or where the cores cannot be counted, it stays.

    Returns:
        the number of threads.
    """
    most = torch.get_num_threads()
    if most == 1 or threads_are_given():
        return most
    try:
        free = FreeCores()
    except OSError:
        return most
    time.sleep(_GLANCE)
    threads = threads_for(free(), most)
    if threads != most:
        torch.set_num_threads(threads)
    return threads

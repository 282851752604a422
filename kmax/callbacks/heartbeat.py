"""Ranks that watch each other, so that a dead rank ends the job instead of blocking the others in a collective."""

from __future__ import annotations

import os
import sys
import threading
import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed import TCPStore

from kmax.strategy.signals import Stopped

STOPPED = "stopped"


class Heartbeat(Callback):
    """End the process where another rank has failed, has died, or has been silent for `patience` seconds.

    A thread of every rank increments a counter in a store on rank 0, which watches all counters; the other ranks check
    that rank 0 can be reached and that nobody has announced the end. The threads continue while a rank waits in a
    collective, loads data or validates, so only a process that is dead or frozen is silent.

    Args:
        every: seconds between two beats.
        patience: seconds without one after which a rank counts as dead.
    """

    def __init__(self, every: float = 5.0, patience: float = 40.0) -> None:
        self.every, self.patience = every, patience
        self._store: Any = None
        self._thread: threading.Thread | None = None
        self._done = threading.Event()
        self._deadline = float("inf")  # time by which this process must have ended by itself
        self._code = 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size == 1:
            return
        self._done.clear()
        host, timeout = os.environ.get("MASTER_ADDR", "127.0.0.1"), timedelta(seconds=self.patience)
        if trainer.is_global_zero:
            self._store = TCPStore(host, 0, is_master=True, timeout=timeout, wait_for_workers=False)
        port = trainer.strategy.broadcast(self._store.port if trainer.is_global_zero else 0)
        if not trainer.is_global_zero:
            self._store = TCPStore(host, port, is_master=False, timeout=timeout)
        arguments = (trainer.global_rank, trainer.world_size)
        self._thread = threading.Thread(target=self._beat, args=arguments, name="heartbeat", daemon=True)
        self._thread.start()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._thread is None:
            return
        trainer.strategy.barrier("Heartbeat")  # a rank that has finished must not look dead to the others
        self._done.set()
        self._thread.join()
        self._thread = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._thread is None:
            return
        stopped = isinstance(exception, Stopped)
        self._code = exception.code if isinstance(exception, Stopped) and isinstance(exception.code, int) else 1
        self._deadline = time.monotonic() + self.patience
        first = (str(exception).splitlines() or [""])[0]
        word = STOPPED if stopped else f"rank {trainer.global_rank} failed ({type(exception).__name__}: {first})"
        try:
            if not self._store.check(["end"]):
                self._store.set("end", word)
        except RuntimeError:
            pass  # rank 0 is gone: the others notice

    def _beat(self, rank: int, world_size: int) -> None:
        seen = dict.fromkeys(range(world_size), (0, time.monotonic()))
        while not self._done.wait(self.every):
            if time.monotonic() > self._deadline:
                os._exit(self._code)
            try:
                self._store.add(f"beat/{rank}", 1)
                if rank == 0:
                    self._look(seen)
                if self._deadline == float("inf") and self._store.check(["end"]):
                    self._obey(self._store.get("end").decode(), rank)
            except RuntimeError:
                if not self._done.is_set() and self._deadline == float("inf"):
                    self._end(f"rank 0 cannot be reached from rank {rank}")

    def _look(self, seen: dict[int, tuple[int, float]]) -> None:
        """Announce the end if a rank has been silent for too long; `seen` holds each rank's last count and its time."""
        now = time.monotonic()
        for rank, (count, since) in seen.items():
            beats = self._store.add(f"beat/{rank}", 0)
            if beats != count:
                seen[rank] = (beats, now)
            elif now - since > self.patience and not self._store.check(["end"]):
                self._store.set("end", f"rank {rank} has not been heard of for {self.patience:.0f} s")
                self._done.wait(2 * self.every)  # the store lives in this process: let the others read

    def _obey(self, word: str, rank: int) -> None:
        if word != STOPPED:
            self._end(word)
        self._code, self._deadline = 0 if rank else self._code, time.monotonic() + self.patience

    def _end(self, reason: str) -> None:
        print(f"error: {reason}; this process ends, so that the job does.", file=sys.stderr, flush=True)
        os._exit(1)

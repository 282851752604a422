"""Processes that end with the one that started them."""

from __future__ import annotations

import os
import threading
import time


def end_with_parent(every: float = 1.0) -> None:
    """Make this child process end when its parent has ended, even if that was killed.

    A thread checks for the parent every `every` seconds, on all systems. (Linux's own signal for this is tied to the
    thread that started the child, which may end before its process does.)
    """
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent, every), name="parent watch", daemon=True).start()


def _watch(parent: int, every: float) -> None:
    while os.getppid() == parent:
        time.sleep(every)
    os._exit(1)

"""Processes that end with the one that started them."""

from __future__ import annotations

import os
import threading
import time


def end_with_parent(every: float = 1.0) -> None:
    """To be called in a child process: it ends when its parent has ended, however that was killed.

    A thread looks for the parent every so many seconds, on every system alike. (Linux's own signal for this is tied to
    the thread that started the child, which may end while its process lives on.)
    """
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent, every), name="parent watch", daemon=True).start()


def _watch(parent: int, every: float) -> None:
    while os.getppid() == parent:
        time.sleep(every)
    os._exit(1)

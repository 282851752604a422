"""The cluster that these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm.cluster import Cluster, running_cluster, why_not


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two virtual nodes of a real SLURM; skipped where it is not installed or cannot be started."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    # Unix sockets want short paths, which pytest's own folders need not be.
    folder: Path = tmp_path_factory.mktemp("c")
    with running_cluster(folder) as running:
        yield running

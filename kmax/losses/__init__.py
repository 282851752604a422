"""Matching and losses on index maps."""

from __future__ import annotations

from kmax.losses.criterion import Criterion
from kmax.losses.losses import Losses
from kmax.losses.matching import Match, match_queries

__all__ = ["Criterion", "Losses", "Match", "match_queries"]

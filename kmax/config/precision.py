"""Weights of another precision than float32."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.plugins import DoublePrecision, HalfPrecision, Precision


class HalfWeights(HalfPrecision):
    """`bf16-true`: weights, moments and statistics in bfloat16: half the memory, and steps below 1/256 vanish.

    Batches stay as they are, since the model takes images to the precision of its weights; and so does torch's default
    precision, since the losses choose theirs.
    """

    def convert_input(self, data: Any) -> Any:
        return data

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        yield


class DoubleWeights(DoublePrecision):
    """`64-true`: everything in float64, to compare with; as `HalfWeights` otherwise."""

    def convert_input(self, data: Any) -> Any:
        return data

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        yield


def precision_plugins(precision: str) -> list[Precision]:
    """What has to replace Lightning's own plugin for `precision`, if anything."""
    if precision == "bf16-true":
        return [HalfWeights(precision)]
    return [DoubleWeights()] if precision == "64-true" else []

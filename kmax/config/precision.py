"""Weights of another precision than float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch.plugins import DoublePrecision, HalfPrecision, Precision


class _ImagesStayBytes(Precision):
    """Batches stay unchanged, since the model converts images to the precision of its weights. torch's default
    precision stays unchanged as well, since the losses choose their own."""

    def convert_input(self, data: object) -> object:
        return data

    def forward_context(self) -> AbstractContextManager[None]:
        return nullcontext()


class HalfWeights(_ImagesStayBytes, HalfPrecision):  # type: ignore[misc]  # Lightning narrows the return type
    """`bf16-true`: weights, moments and statistics in bfloat16: half the memory, but relative steps below 1/256
    vanish."""


class DoubleWeights(_ImagesStayBytes, DoublePrecision):  # type: ignore[misc]  # as above
    """`64-true`: everything in float64, as a reference."""


def precision_plugins(precision: str) -> list[Precision]:
    """What has to replace Lightning's own plugin for `precision`, if anything."""
    if precision in ("bf16-true", "16-true"):
        return [HalfWeights(precision)]  # type: ignore[arg-type]
    return [DoubleWeights()] if precision == "64-true" else []

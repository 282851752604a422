"""The rate over the steps."""

from __future__ import annotations


def warmup_poly(step: int, total: int, warmup: int = 5000, start: float = 0.001, power: float = 0.9) -> float:
    """Factor of the rate at `step`: a linear warm-up, then polynomial decay to 0 at `total`.

    The decay counts from step 0, so the factor drops a little where the warm-up of `warmup` steps ends.

    Raises:
        ValueError: `total` is not positive.
    """
    if total <= 0:
        raise ValueError(f"A schedule needs a positive number of steps, not {total}: set optimizer.steps.")
    if step < warmup:
        return start + (1 - start) * step / warmup
    return float(max(0.0, 1 - step / total) ** power)

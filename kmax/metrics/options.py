"""What can be measured, and under which names it is logged. Imports no torch."""

from __future__ import annotations

LOGGED = {
    "pq": ("pq", "sq", "rq", "pq_things", "pq_stuff"),
    "miou": ("miou", "pixel_accuracy"),
    "ap": ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    "boundary_pq": ("boundary_pq", "boundary_sq", "boundary_rq", "boundary_pq_things", "boundary_pq_stuff"),
}
"""The numbers that a run logs as `val/NAME`, by the metric that they belong to."""
METRICS = tuple(LOGGED)

"""What the LightningModule of a run carries, for callbacks that get it as any LightningModule."""

from __future__ import annotations

from lightning.pytorch import LightningModule

from kmax.categories import Categories


def categories_of(pl_module: LightningModule) -> Categories:
    """The classes of the model."""
    categories = pl_module.categories
    assert isinstance(categories, Categories), "KMaXModule carries its categories"
    return categories

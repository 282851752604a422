"""The classes of datasets."""

from kmax.categories.categories import Categories, Category, all_categories, default_color, load_categories

__all__ = ["Categories", "Category", "all_categories", "default_color", "load_categories"]

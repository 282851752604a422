"""The classes of datasets."""

from kmax.categories.categories import Categories, Category, all_categories, default_color, load_categories
from kmax.categories.matching import Listed, match_categories

__all__ = [
    "Categories",
    "Category",
    "Listed",
    "all_categories",
    "default_color",
    "load_categories",
    "match_categories",
]

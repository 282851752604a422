"""Which images are kept for validation."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from kmax.data.convert.source import Item

NO_LABEL = ""  # a class of its own: images without any annotation


def stratified(items: Sequence[Item], fraction: float, seed: int, kept: Mapping[str, str] | None = None) -> set[str]:
    """Keys of the images for validation: of every class about `fraction` of its images.

    Iterative stratification (Sechidis et al., ECML 2011): the class with the fewest images left is dealt with first,
    and each of its images goes to the split that still needs most of that class. A class of one image
    stays in training.

    Args:
        kept: splits of images that are decided already, by key.
    """
    shuffled = sorted(items, key=lambda item: item.key)
    random.Random(seed).shuffle(shuffled)
    labels = {item.key: item.labels or frozenset({NO_LABEL}) for item in shuffled}
    total = Counter(label for item in shuffled for label in labels[item.key])
    wanted = {"val": {label: count * fraction for label, count in total.items()}}
    wanted["train"] = {label: count - wanted["val"][label] for label, count in total.items()}
    room = {"val": len(shuffled) * fraction, "train": len(shuffled) * (1 - fraction)}
    chosen: dict[str, str] = {}

    def put(key: str, split: str) -> None:
        chosen[key] = split
        room[split] -= 1
        for label in labels[key]:
            wanted[split][label] -= 1

    for key, split in (kept or {}).items():
        if key in labels:
            put(key, split)
    while len(chosen) < len(shuffled):
        left = Counter(label for key, own in labels.items() if key not in chosen for label in own)
        rarest = min(left, key=lambda label: (left[label], label))
        for key in [item.key for item in shuffled if item.key not in chosen and rarest in labels[item.key]]:
            lack = {split: (wanted[split][rarest], room[split], split == "train") for split in room}
            put(key, max(lack, key=lambda split: lack[split]))
    return _never_empty({key for key, split in chosen.items() if split == "val"}, labels, fraction, kept or {})


def _never_empty(
    val: set[str], labels: Mapping[str, frozenset[str]], fraction: float, kept: Mapping[str, str]
) -> set[str]:
    """With two images or more, both splits have one."""
    if len(labels) < 2 or not 0 < fraction < 1:
        return val
    free = [key for key in labels if key not in kept] or list(labels)
    if not val:
        return {min(free, key=lambda key: len(labels[key]))}
    return val - {max(val, key=lambda key: len(labels[key]))} if len(val) == len(labels) else val

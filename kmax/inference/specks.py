"""Segments that are too small to be listed."""

from __future__ import annotations

import torch

from kmax.structures import PanopticMap, Segment

_PIECE = 2**22  # pixels that are renumbered at a time


def without_specks(found: PanopticMap, min_area: int) -> PanopticMap:
    """Segments with fewer than `min_area` pixels become void; the others keep their order and are numbered from 1."""
    if not min_area or not found.segments:
        return found
    flat = found.segment_map.flatten()
    highest = max(segment.id for segment in found.segments)
    areas = sum(torch.bincount(part, minlength=highest + 1) for part in flat.split(_PIECE))
    assert isinstance(areas, torch.Tensor), "a map has pixels"
    area = areas.tolist()
    large = [segment for segment in found.segments if area[segment.id] >= min_area]
    number = [0] * (highest + 1)
    for new, segment in enumerate(large, 1):
        number[segment.id] = new
    table = torch.tensor(number, dtype=flat.dtype, device=flat.device)
    cleaned = torch.cat([table[part] for part in flat.split(_PIECE)]).reshape(found.segment_map.shape)
    return PanopticMap(cleaned, tuple(Segment(number[s.id], s.label, s.crowd, s.score) for s in large))

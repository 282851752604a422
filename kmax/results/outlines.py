"""Masks as polygons that annotation tools take.

Vertices lie on the corners of pixels, so that COCO's rasterization (pycocotools) gives back the very mask as long as
nothing is simplified. A polygon cannot have a hole: each hole is joined to its outline by a slit of no width, which is
walked once in each direction and changes no pixel.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import cKDTree

_FINEST = 0.1  # of the square root of a ring's area: small rings keep their shape whatever the tolerance


def polygons(mask: np.ndarray, tolerance: float = 0.0) -> list[list[int]]:
    """One polygon x0, y0, x1, y1, … for each connected component (eight neighbors) of a mask (H, W) bool.

    Args:
        tolerance: pixels that a simplified outline may deviate (Douglas-Peucker); 0 keeps every pixel.
    """
    # Pixels twice as large have no line of a single pixel, and each of their border pixels belongs to one corner.
    doubled = mask.astype(np.uint8).repeat(2, 0).repeat(2, 1)
    contours, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outlines: dict[int, np.ndarray] = {}
    holes: dict[int, list[np.ndarray]] = {}
    for number, contour in enumerate(contours):
        ring = _simplified(_corners(contour[:, 0]), tolerance)
        parent = int(tree[0, number, 3])
        if parent < 0:
            outlines[number] = ring
        else:
            holes.setdefault(parent, []).append(ring)
    found = [_with_holes(outline, holes.get(number, [])) for number, outline in outlines.items()]
    return [ring.ravel().tolist() for ring in found]


def _corners(contour: np.ndarray) -> np.ndarray:
    """The corners of pixels (points, 2) at which a contour of doubled pixels turns."""
    ring = (contour + 1) // 2
    ring = ring[(ring != np.roll(ring, 1, 0)).any(1)]
    turns = ((ring - np.roll(ring, 1, 0)) != (np.roll(ring, -1, 0) - ring)).any(1)
    corners: np.ndarray = ring[turns]
    return corners


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    points = np.ascontiguousarray(ring, np.int32)
    least = min(tolerance, _FINEST * float(cv2.contourArea(points)) ** 0.5)
    if least <= 0:
        return ring
    kept = cv2.approxPolyDP(points[:, None], least, True)[:, 0]
    return kept if len(kept) >= 3 else ring


def _with_holes(outline: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """The outline with every hole joined to it by a slit between their nearest corners."""
    for hole in holes:
        distances, nearest = cKDTree(outline).query(hole)
        there = int(distances.argmin())
        here = int(nearest[there])
        loop = np.concatenate([hole[there:], hole[: there + 1]])
        outline = np.concatenate([outline[: here + 1], loop, outline[here:]])
    return outline

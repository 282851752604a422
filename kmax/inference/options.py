"""The options of inference: thresholds of post-processing, and test-time augmentation."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SCALE = 4.0
METHODS = ("mask_wise", "pixel_wise")


@dataclass(frozen=True)
class Thresholds:
    """The numbers of inference; the defaults are those of COCO.

    A query scores (class probability)^`alpha` × (mean mask probability)^`beta`. It is kept if its class probability
    exceeds `thing_threshold` or `stuff_threshold` and if more than `overlap` of its pixels are still free. A pixel
    belongs to a query's mask if its probability exceeds `pixel_threshold`.

    `method`: `mask_wise` (kMaX-DeepLab), what is said above, or `pixel_wise` (MaX-DeepLab), where a pixel belongs to one
    slot and segments below `thing_area` or `stuff_area` pixels are dropped; the scores' exponents and `overlap` do not
    matter there.
    """

    alpha: float = 1.0
    beta: float = 1.0
    thing_threshold: float = 0.7
    stuff_threshold: float = 0.5
    overlap: float = 0.8
    pixel_threshold: float = 0.4
    method: str = "mask_wise"
    thing_area: int = 0
    stuff_area: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"inference.method={self.method} is unknown: choose one of {', '.join(METHODS)}.")
        if self.method == "mask_wise" and (self.thing_area or self.stuff_area):
            raise ValueError(
                "inference.thing_area and inference.stuff_area belong to the pixel-wise post-processing: set "
                "inference.method=pixel_wise, or both areas to 0."
            )
        for name in ("thing_area", "stuff_area"):
            if getattr(self, name) < 0:
                raise ValueError(f"inference.{name}={getattr(self, name)} must be at least 0.")
        for name in ("thing_threshold", "stuff_threshold", "overlap", "pixel_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"The inference threshold {name}={getattr(self, name)} must lie between 0 and 1.")


COCO = Thresholds()


@dataclass(frozen=True)
class InferenceOptions(Thresholds):
    """Thresholds and test-time options.

    `scales`: factors of the input size, one pass each; `flip`: each of them mirrored, too; the passes are averaged.
    `pad=False` pads an image only to the next size that the network wants instead of to the whole input size.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    pad: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scales", tuple(self.scales))  # JSON and YAML have lists
        if not self.scales or not all(isinstance(s, (int, float)) and 0 < s <= MAX_SCALE for s in self.scales):
            raise ValueError(
                f"inference.scales={list(self.scales)} must be one or more factors between 0 and {MAX_SCALE:g}, "
                "e.g. [0.75,1,1.25]."
            )

    @property
    def plain(self) -> bool:
        """One pass of the image padded to the input size."""
        return self.pad and not self.flip and self.scales == (1.0,)

    @property
    def passes(self) -> list[tuple[float, bool]]:
        """(scale, mirrored) of every pass, the reference first."""
        scales = sorted(set(self.scales), key=lambda scale: (abs(scale - 1), scale))
        return [(scale, mirrored) for scale in scales for mirrored in ((False, True) if self.flip else (False,))]

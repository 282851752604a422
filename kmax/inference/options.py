"""The options of inference: thresholds of post-processing, and test-time augmentation. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from kmax.options import OptionError, Options, option

MAX_SCALE = 4.0
METHODS = ("mask_wise", "pixel_wise")


@dataclass(frozen=True)
class Thresholds(Options):
    """The numbers of post-processing; the defaults are those of COCO.

    A query scores (class probability)^`alpha` × (mean mask probability)^`beta`. It is kept if its class probability
    exceeds `thing_threshold` or `stuff_threshold` and if more than `overlap` of its pixels are still free. A pixel
    belongs to a query's mask if its probability exceeds `pixel_threshold`.

    `method`: `mask_wise` (kMaX-DeepLab), as described above, or `pixel_wise` (MaX-DeepLab), where a pixel belongs to
    one slot and segments below `thing_area` or `stuff_area` pixels are dropped; `alpha`, `beta` and `overlap` have no
    effect there.

    `min_area` comes last, by any method: a segment below it becomes void, and its pixels go to nobody else.
    """

    alpha: float = option(1.0, "exponent of the class probability in a query's score", at_least=0)
    beta: float = option(1.0, "exponent of the mean mask probability in a query's score", at_least=0)
    thing_threshold: float = option(0.7, "class probability that a thing must exceed", at_least=0, at_most=1)
    stuff_threshold: float = option(0.5, "class probability that stuff must exceed", at_least=0, at_most=1)
    overlap: float = option(0.8, "fraction of a mask that must still be free", at_least=0, at_most=1)
    pixel_threshold: float = option(0.4, "mask probability that a pixel must exceed", at_least=0, at_most=1)
    method: str = option("mask_wise", "post-processing of kMaX-DeepLab or of MaX-DeepLab", choices=METHODS)
    thing_area: int = option(0, "pixel_wise: things with fewer pixels of the padded image are dropped", at_least=0)
    stuff_area: int = option(0, "pixel_wise: the same for stuff", at_least=0)
    min_area: int = option(0, "segments and instances with fewer pixels of the result are dropped", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("thing_area", "stuff_area"):
            if self.method == "mask_wise" and getattr(self, name):
                raise OptionError(
                    f"{name}={getattr(self, name)} belongs to method=pixel_wise: choose that method, or set it to 0."
                )


COCO = Thresholds()


@dataclass(frozen=True)
class InferenceOptions(Thresholds):
    """Thresholds and test-time options; several passes over an image are averaged."""

    flip: bool = option(False, "a further, mirrored pass at each scale")
    scales: tuple[float, ...] = option((1.0,), "factors of the input size, one pass each", above=0, at_most=MAX_SCALE)
    pad: bool = option(True, "pad to the whole input size; false: only to the next size that the network takes")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales:
            raise OptionError("scales=[] must be one or more factors, e.g. [0.75,1,1.25].")

    @property
    def plain(self) -> bool:
        """One pass of the image padded to the input size."""
        return self.pad and not self.flip and self.scales == (1.0,)

    @property
    def passes(self) -> list[tuple[float, bool]]:
        """(scale, mirrored) of every pass, the reference first."""
        scales = sorted(set(self.scales), key=lambda scale: (abs(scale - 1), scale))
        return [(scale, mirrored) for scale in scales for mirrored in ((False, True) if self.flip else (False,))]

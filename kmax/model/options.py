"""The options of the network. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from kmax.options import REQUIRED, OptionError, Options, option

FAMILIES = ("detectron2", "deeplab2")
STAGES = 4
"""Number of stages of a backbone, without the stem."""
ARCHITECTURES = ("kmax_deeplab", "max_deeplab")
ATTENTIONS = ("kmeans", "softmax", "cmt")
UPDATES = ("sum", "mean")
SEMANTIC_HEADS = ("aspp", "plain", "none")


@dataclass(frozen=True)
class BackboneOptions(Options):
    """The backbone: a timm model, `max_s`, or MaX-DeepLab's own."""

    name: str = option(
        REQUIRED, "timm's name, with a tag if weights matter (convnext_large.fb_in22k), max_s, max_deeplab_s or _l"
    )
    pretrained: bool | str = option(
        False, "true: timm's weights of that name; or a file of ImageNet weights, or their name in the model zoo"
    )
    family: str | None = option(
        None,
        "whose ResNet or ConvNeXt to reproduce; null: model.family (COCONut mixes them)",
        choices=FAMILIES,
    )
    drop_path: float = option(
        0.0, "drop-path rate of the last block; grows linearly from 0 at the first", at_least=0, at_most=1
    )
    freeze: int | str = option(0, "frozen stages: 0 none, 1 to 4 that many and the stem, or all")
    freeze_norms: bool = option(False, "batch norms keep their running statistics: for few images per device")
    checkpointing: bool = option(False, "compute the activations of each stage again in the backward pass")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.freeze != "all" and self.freeze not in range(STAGES + 1):
            raise OptionError(f"freeze={self.freeze} must be all, or a number of stages from 0 to {STAGES}.")


@dataclass(frozen=True)
class ModelOptions(Options):
    """kMaX-DeepLab: pixel decoder, k-means transformer decoder, semantic head; or MaX-DeepLab.

    MaX-DeepLab uses `num_queries` (its slots), `dim` (of its memory), `feature_dim`, `ffn_dim`, `heads`, `drop_path`,
    `semantic_head`, `semantic_dim`, and the options whose meaning begins with `max_deeplab:`.
    """

    architecture: str = option(
        "kmax_deeplab", "the network; max_deeplab with backbone.name=max_deeplab_s or _l", choices=ARCHITECTURES
    )
    family: str = option("detectron2", "which published implementation to reproduce", choices=FAMILIES)
    num_queries: int = option(128, "N, the number of clusters", at_least=1)
    widths: tuple[int, ...] = option(
        (512, 256, 128, 64, 32),
        "of the pixel decoder's stages at strides 32, 16, 8, 4 and the stem's",
        at_least=1,
    )
    blocks: tuple[int, ...] = option((1, 5, 1, 1, 1), "number of blocks of each of these stages", at_least=1)
    axial_stages: int = option(2, "number of stages with axial attention, beginning with the coarsest", at_least=0)
    decoder_heads: int = option(8, "attention heads of the pixel decoder", at_least=1)
    decoder_drop_path: float = option(0.0, "drop-path rate of the pixel decoder's blocks", at_least=0, at_most=1)
    stem_stage: bool = option(False, "a further stage on the stem's feature (Cityscapes)")
    layers: tuple[int, ...] = option((2, 2, 2), "transformer layers on strides 32, 16 and 8", at_least=0)
    dim: int = option(256, "channels of the cluster centers", at_least=1)
    feature_dim: int = option(128, "channels of the pixel feature", at_least=1)
    ffn_dim: int = option(2048, "hidden channels of the feed-forward networks", at_least=1)
    heads: int = option(8, "attention heads among the cluster centers", at_least=1)
    drop_path: float = option(0.2, "drop-path rate of the updates in a layer", at_least=0, at_most=1)
    attention: str = option(
        "kmeans",
        "how queries gather pixels; cmt is soft clustering as in the paper of CMT-DeepLab",
        choices=ATTENTIONS,
    )
    update: str = option("sum", "kmeans: a cluster takes the sum or the mean of its pixels", choices=UPDATES)
    recurrence: int = option(
        1, "kmeans: how often a layer repeats assignment and update, each time supervised (ClustSeg)", at_least=1
    )
    pixel_update: bool = option(False, "cmt: the centers also update the pixels")
    residual_assignment: bool = option(False, "cmt: a layer adds the mask logits of the layer before")
    coordinates: bool = option(False, "append the coordinates of the pixels to the features of each layer")
    remax: bool = option(False, "relax coarse predictions in training (ReMaX); inference does not change")
    width: float = option(1.0, "max_deeplab: factor of the widths of all blocks", above=0)
    hidden_dim: int = option(256, "max_deeplab: hidden channels before the pixel feature", at_least=1)
    drop_path_schedule: str = option(
        "linear",
        "max_deeplab: drop_path grows with the stride, or is the same everywhere",
        choices=("linear", "constant"),
    )
    semantic_head: str = option("aspp", "auxiliary semantic head, in training only", choices=SEMANTIC_HEADS)
    checkpointing: bool = option(False, "compute decoder stages and layers again in the backward pass")
    semantic_dim: int = option(256, "channels of the auxiliary semantic head", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture == "kmax_deeplab" and self.dim % (2 * self.heads):
            raise OptionError(
                f"heads={self.heads} must divide half of dim={self.dim}: each head takes an equal part of the keys."
            )
        self._belongs("attention", "kmeans", ("update", "recurrence"))
        self._belongs("attention", "cmt", ("pixel_update", "residual_assignment"))
        self._belongs("architecture", "kmax_deeplab", OF_KMAX)
        self._belongs("architecture", "max_deeplab", OF_MAX)

    def _belongs(self, choice: str, wanted: str, names: tuple[str, ...]) -> None:
        """Check that options of one choice keep their default under the other choices.

        Raises:
            OptionError: it does not.
        """
        chosen = getattr(self, choice)
        for name in names:
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if chosen != wanted and value != default:
                raise OptionError(
                    f"{name}={value} belongs to {choice}={wanted}, not to {chosen}: leave it at {default}, or choose "
                    f"{choice}={wanted}."
                )


OF_KMAX = (
    "widths", "blocks", "axial_stages", "decoder_heads", "decoder_drop_path", "stem_stage", "layers", "attention",
    "coordinates", "remax",
)  # fmt: skip
"""Options that MaX-DeepLab has no use for."""
OF_MAX = ("width", "hidden_dim", "drop_path_schedule")
"""Options that kMaX-DeepLab has no use for."""
MAX_BACKBONES = {"max_deeplab_s": "s", "max_deeplab_l": "l"}
"""The published networks of MaX-DeepLab by their backbone's name."""


def check_network(backbone: BackboneOptions, model: ModelOptions) -> None:
    """Check that backbone and network belong together.

    Raises:
        OptionError: they do not.
    """
    own = backbone.name in MAX_BACKBONES
    if own != (model.architecture == "max_deeplab"):
        raise OptionError(
            f"architecture={model.architecture} does not go with backbone.name={backbone.name}: MaX-DeepLab and its "
            "backbone come together, by model=max_deeplab_s or model=max_deeplab_l."
        )
    if own and backbone.drop_path:
        raise OptionError(
            f"backbone.drop_path={backbone.drop_path:g} has no effect in MaX-DeepLab, whose blocks share one schedule: "
            "set model.drop_path."
        )
    if own and (backbone.freeze or backbone.freeze_norms):
        raise OptionError(
            "backbone.freeze and backbone.freeze_norms have no effect in MaX-DeepLab, whose slots are part of the "
            "backbone: leave them at their defaults."
        )
    if own and backbone.pretrained is True:
        raise OptionError(
            "backbone.pretrained=true is impossible: timm has no weights of MaX-DeepLab; set it to false, or to "
            "the path of deeplab2's TensorFlow checkpoint (docs/model_zoo.md)."
        )

"""kMaX-DeepLab: backbone, pixel decoder, k-means transformer decoder (arXiv 2207.04044).

Letters: B batch, H×W input size, N queries, K classes without void, h×w size of the finest feature.
"""

from __future__ import annotations

from torch import Tensor, nn

from kmax.geometry import align_corners
from kmax.model.backbone import ResNetBackbone
from kmax.model.features import STEM, Backbone
from kmax.model.kmeans_layer import KMeansLayer
from kmax.model.layers import resize
from kmax.model.options import ModelOptions
from kmax.model.pixel_decoder import PixelDecoder
from kmax.model.semantic_head import AtrousSemanticHead, PlainSemanticHead
from kmax.model.transformer_decoder import COARSE_STRIDES, TransformerDecoder
from kmax.options import OptionError
from kmax.structures import Output, Prediction


class KMaXDeepLab(nn.Module):
    """A k-means mask transformer.

    Args:
        backbone: features by stride.
        num_classes: K, things and stuff, without void.
        options: of pixel decoder, transformer decoder and semantic head.

    Raises:
        OptionError: options that do not fit each other or the backbone.
    """

    def __init__(self, backbone: Backbone, num_classes: int, options: ModelOptions | None = None) -> None:
        super().__init__()
        options = options or ModelOptions()
        self.backbone = backbone
        # In the detectron2 family features have their activation already.
        self.semantic_act = backbone.act if options.family == "deeplab2" else nn.Identity()
        self.order = _stage_order(backbone, options)
        self.pixel_decoder = PixelDecoder([backbone.channels[key] for key in self.order], options)
        self.transformer_decoder = TransformerDecoder(self.pixel_decoder.channels, num_classes, options)
        self.semantic_head = _semantic_head(options, backbone, num_classes)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """A name for each prediction, coarse to final, with its stride."""
        decoder, names = self.transformer_decoder, list[str]()
        for number, (level, layer) in enumerate(zip(decoder.level, decoder.layers, strict=True), 1):
            assert isinstance(layer, KMeansLayer), "the decoder consists of k-means layers"
            recurrence = layer.options.recurrence
            rounds = [""] if recurrence == 1 else [f".{n + 1}" for n in range(recurrence)]
            names += [f"layer {number}{suffix} · 1/{COARSE_STRIDES[level]}" for suffix in rounds]
        return (*names, "final")

    def forward(self, images: Tensor, coarse: bool = True) -> Output:
        """Normalized images (B, 3, H, W) → predictions, coarse to final, each with class logits (B, N, K+1), mask
        logits (B, N, h, w) and pixel feature (B, `feature_dim`, h, w); in training also semantic logits, and the
        pixel features of the coarse predictions at their own stride.

        `coarse=False` leaves out all predictions but the final one.
        """
        aligned = align_corners(images.shape[-1])
        # Images take on the precision of the weights, which need not be float32.
        features = self.backbone(images.to(self.transformer_decoder.centres.dtype))
        pixels = self.pixel_decoder([features[key] for key in self.order], aligned)
        (*first, final), relaxation = self.transformer_decoder(pixels[: len(COARSE_STRIDES)], pixels[-1], aligned)
        resized = tuple(self._resized(p, final, aligned) for p in first) if coarse else ()
        semantic = self.semantic(features, aligned) if self.training else None
        return Output((*resized, final), semantic, tuple(relaxation) if self.training and coarse else ())

    def semantic(self, features: dict[int, Tensor], aligned: bool) -> Tensor | None:
        """The auxiliary semantic head's logits of the backbone's features, (B, K+1, h, w), or K of them if plain."""
        if self.semantic_head is None:
            return None
        inputs = [features[32], *(self.semantic_act(features[stride]) for stride in (8, 4))]
        logits: Tensor = self.semantic_head(inputs, aligned)
        return logits

    def _resized(self, prediction: Prediction, final: Prediction, aligned: bool) -> Prediction:
        """A coarse prediction at the size of the final one. In training the pixel feature stays as it is: the
        criterion interpolates the few pixels that it draws."""
        size = (final.mask_logits.shape[-2], final.mask_logits.shape[-1])
        feature = prediction.pixel_feature if self.training else resize(prediction.pixel_feature, size, aligned)
        return prediction._replace(mask_logits=resize(prediction.mask_logits, size, aligned), pixel_feature=feature)


def _stage_order(backbone: Backbone, options: ModelOptions) -> list[int]:
    """Keys of the backbone's features in the order in which the pixel decoder takes them."""
    if not options.stem_stage:
        return [32, 16, 8, 4]
    if STEM not in backbone.channels:
        raise OptionError(
            "stem_stage=true needs a ResNet, ConvNeXt or MaX-S backbone: the others offer no stem feature."
        )
    # The published PyTorch code feeds ResNet's two stride-4 features in this order.
    stem_first = options.family == "detectron2" and isinstance(backbone, ResNetBackbone)
    return [32, 16, 8, STEM, 4] if stem_first else [32, 16, 8, 4, STEM]


def _semantic_head(options: ModelOptions, backbone: Backbone, num_classes: int) -> nn.Module | None:
    if options.semantic_head == "aspp":
        return AtrousSemanticHead(
            [backbone.channels[stride] for stride in (32, 8, 4)], num_classes + 1, options.semantic_dim
        )
    if options.semantic_head == "plain":
        return PlainSemanticHead(backbone.channels[32], num_classes, options.semantic_dim)
    return None

"""kMaX-DeepLab: backbone, pixel decoder, k-means transformer decoder (arXiv 2207.04044).

Letters: B batch, H×W input size, N queries, K classes without void, h×w size of the finest feature.
"""

from __future__ import annotations

from torch import Tensor, nn

from kmax.geometry import align_corners
from kmax.model.backbone import ResNetBackbone
from kmax.model.block import EXPANSION
from kmax.model.features import STEM, Backbone
from kmax.model.layers import resize
from kmax.model.pixel_decoder import PixelDecoder
from kmax.model.semantic_head import AtrousSemanticHead, PlainSemanticHead
from kmax.model.transformer_decoder import TransformerDecoder
from kmax.structures import Output, Prediction

COARSE_STRIDES = (32, 16, 8)


class KMaXDeepLab(nn.Module):
    """A k-means mask transformer.

    Args:
        backbone: features by stride.
        num_classes: K, things and stuff, without void.
        family: which published implementation to equal, `detectron2` or `deeplab2`.
        num_queries: N, the number of clusters.
        widths, blocks: of the pixel decoder's stages at strides 32, 16, 8, 4 and, with `stem_stage`, the stem's.
        axial_stages: how many stages, from the coarsest, use axial attention.
        decoder_heads, decoder_drop_path: of the pixel decoder.
        stem_stage: a further stage on the stem's feature (Cityscapes).
        layers: transformer layers on strides 32, 16 and 8.
        dim, feature_dim, ffn_dim, heads, drop_path: of the transformer decoder; `feature_dim` is the pixel feature's.
        attention: `kmeans`, or `softmax` for ordinary cross-attention.
        semantic_head, semantic_dim: `aspp`, `plain` (K outputs, on stride 32) or `none`, and its width.
        checkpointing: compute the activations of pixel-decoder stages and transformer layers again in the backward
            pass: less memory for more time (`backbone.checkpointing` does so for the backbone).

    Raises:
        ValueError: options that do not fit each other or the backbone.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        family: str = "detectron2",
        num_queries: int = 128,
        widths: tuple[int, ...] = (512, 256, 128, 64, 32),
        blocks: tuple[int, ...] = (1, 5, 1, 1, 1),
        axial_stages: int = 2,
        decoder_heads: int = 8,
        decoder_drop_path: float = 0.0,
        stem_stage: bool = False,
        layers: tuple[int, ...] = (2, 2, 2),
        dim: int = 256,
        feature_dim: int = 128,
        ffn_dim: int = 2048,
        heads: int = 8,
        drop_path: float = 0.2,
        attention: str = "kmeans",
        semantic_head: str = "aspp",
        semantic_dim: int = 256,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.order = _stage_order(backbone, family, stem_stage)
        stages = len(self.order)
        if len(widths) < stages or len(blocks) < stages or len(layers) != len(COARSE_STRIDES):
            raise ValueError(
                f"model.widths and model.blocks need {stages} entries, model.layers {len(COARSE_STRIDES)}."
            )
        self.pixel_decoder = PixelDecoder(
            [backbone.channels[key] for key in self.order],
            widths[:stages],
            blocks[:stages],
            [stage < axial_stages for stage in range(stages)],
            decoder_heads,
            2 if family == "deeplab2" else 1,
            decoder_drop_path,
            checkpointing,
        )
        channels = [EXPANSION * width for width in widths[:stages]]
        self.transformer_decoder = TransformerDecoder(
            channels[: len(COARSE_STRIDES)],
            channels[-1],
            num_classes,
            num_queries,
            layers,
            dim,
            feature_dim,
            ffn_dim,
            heads,
            drop_path,
            attention,
            checkpointing,
        )
        self.semantic_head = _semantic_head(semantic_head, backbone, num_classes, semantic_dim)

    def forward(self, images: Tensor, coarse: bool = True) -> Output:
        """Normalised images (B, 3, H, W) → predictions, coarse to final, each with class logits (B, N, K+1), mask
        logits (B, N, h, w) and pixel feature (B, `feature_dim`, h, w); in training also semantic logits, and the
        pixel features of the coarse predictions at their own stride.

        `coarse=False` leaves out all predictions but the final one.
        """
        aligned = align_corners(images.shape[-1])
        features = self.backbone(images.to(self.transformer_decoder.centres.dtype))  # weights may be of another precision
        pixels = self.pixel_decoder([features[key] for key in self.order], aligned)
        *first, final = self.transformer_decoder(pixels[: len(COARSE_STRIDES)], pixels[-1])
        resized = tuple(self._resized(p, final, aligned) for p in first) if coarse else ()
        return Output((*resized, final), self.semantic(features, aligned) if self.training else None)

    def semantic(self, features: dict[int, Tensor], aligned: bool) -> Tensor | None:
        """The auxiliary semantic head's logits of the backbone's features, (B, K+1, h, w), or K of them if plain."""
        if self.semantic_head is None:
            return None
        handed = {
            stride: features[stride] if stride == 32 else self.backbone.act(features[stride]) for stride in (32, 8, 4)
        }
        return self.semantic_head(handed, aligned)

    def _resized(self, prediction: Prediction, final: Prediction, aligned: bool) -> Prediction:
        """A coarse prediction at the size of the final one. In training the pixel feature stays as it is: the
        criterion interpolates the few pixels that it draws."""
        size = (final.mask_logits.shape[-2], final.mask_logits.shape[-1])
        feature = prediction.pixel_feature if self.training else resize(prediction.pixel_feature, size, aligned)
        return prediction._replace(mask_logits=resize(prediction.mask_logits, size, aligned), pixel_feature=feature)


def _stage_order(backbone: Backbone, family: str, stem_stage: bool) -> list[int]:
    """Keys of the backbone's features in the order in which the pixel decoder takes them."""
    if not stem_stage:
        return [32, 16, 8, 4]
    if STEM not in backbone.channels:
        raise ValueError(
            "model.stem_stage=true needs a ResNet, ConvNeXt or MaX-S backbone: the others hand out no stem feature."
        )
    # The published PyTorch code feeds ResNet's two stride-4 features in this order.
    stem_first = family == "detectron2" and isinstance(backbone, ResNetBackbone)
    return [32, 16, 8, STEM, 4] if stem_first else [32, 16, 8, 4, STEM]


def _semantic_head(kind: str, backbone: Backbone, num_classes: int, dim: int) -> nn.Module | None:
    if kind == "aspp":
        return AtrousSemanticHead(backbone.channels, num_classes + 1, dim)
    if kind == "plain":
        return PlainSemanticHead(backbone.channels, num_classes, dim)
    if kind == "none":
        return None
    raise ValueError(f"model.semantic_head={kind} is unknown: choose aspp, plain or none.")

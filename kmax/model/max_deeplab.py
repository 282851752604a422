"""MaX-DeepLab: dual-path transformer, stacked decoder, masks and classes from one set of slots (arXiv 2012.00759).

Letters: B batch, H×W input size, N slots ("memory"), M memory channels, K classes without void, h×w size at stride 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kmax.geometry import align_corners
from kmax.model.axial_attention import RelativePosition
from kmax.model.block import stem
from kmax.model.dual_path import DualPathBlock, MemoryOptions
from kmax.model.layers import ConvNorm, init_he_normal, resize
from kmax.model.options import ModelOptions
from kmax.model.prediction_head import PredictionHead
from kmax.model.recompute import recompute
from kmax.model.semantic_head import AtrousSemanticHead, PlainSemanticHead
from kmax.model.stacked import LAYOUTS, Layout, StepBlocks, drop_rates
from kmax.structures import Output, Prediction

ACT = nn.ReLU


class MaXBackbone(nn.Module):
    """The part that ImageNet weights fill: stem and residual blocks of the first steps; it has its own learning
    rate."""

    def __init__(self, layout: Layout, steps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stem = stem(layout.stem, ACT)
        self.steps = nn.ModuleList(steps)


class MaXDeepLab(nn.Module):
    """A mask transformer whose slots and pixels exchange information, beginning inside the backbone.

    Args:
        variant: which of the published networks, `s` or `l`.
        num_classes: K, things and stuff, without void.

    `checkpointing`: compute the activations of each block again in the backward pass.
    """

    checkpointing: bool = False

    def __init__(self, variant: str, num_classes: int, options: ModelOptions | None = None) -> None:
        super().__init__()
        options = options or ModelOptions(architecture="max_deeplab")
        self.layout = layout = LAYOUTS[variant].scaled(options.width)
        rates = drop_rates(layout, options.drop_path, options.drop_path_schedule)
        steps = list(_steps(layout, rates, options.heads))
        self.backbone = MaXBackbone(layout, steps[: layout.backbone])
        self.decoder = nn.ModuleList(steps[layout.backbone :])
        memory = MemoryOptions(options.dim, options.ffn_dim, options.heads)
        self.dual_paths = nn.ModuleList(
            nn.ModuleList(DualPathBlock(step.channels, step.dual_path, memory, rate, ACT) for rate in of_step)
            if step.dual_path
            else nn.ModuleList()
            for step, of_step in zip(layout.steps, rates, strict=True)
        )
        self.memory = nn.Parameter(torch.empty(options.dim, options.num_queries))  # (M, N)
        self.class_embedding = ConvNorm(options.dim, options.dim, dims=1, act=ACT)
        self.mask_embedding = ConvNorm(options.dim, options.dim, dims=1, act=ACT)
        self._initialize()
        self.predictor = PredictionHead(
            layout.steps[-1].channels, options.dim, options.feature_dim, num_classes, hidden=options.hidden_dim, act=ACT
        )
        self.semantic_head = _semantic_head(options, layout, num_classes)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the predictions outside training: the dual-path blocks with their strides, then the final one."""
        pairs = zip(self.layout.steps, self.dual_paths, strict=True)
        strides = [step.stride for step, blocks in pairs if isinstance(blocks, nn.ModuleList) for _ in blocks]
        return (*(f"block {number} · 1/{stride}" for number, stride in enumerate(strides, 1)), "final")

    def forward(self, images: Tensor, coarse: bool = True) -> Output:
        """Normalized images (B, 3, H, W) → one prediction: class logits (B, N, K+1), mask logits (B, N, h, w), pixel
        feature (B, `feature_dim`, h, w); in training also semantic logits (B, K+1, …).

        Outside training, and unless `coarse=False`, each dual-path block adds a prediction before it, for inspection
        only: the class that each slot would get after the block; as mask logits the logarithm of the pixels' attention
        to the slots; as pixel feature the pixels' queries; both resized to h×w. The network is not trained on them.
        """
        aligned = align_corners(images.shape[-1])
        features, memory, readings = self._features(images, aligned, coarse and not self.training)
        final = self.predictor(self.class_embedding(memory), self.mask_embedding(memory), F.relu(features[-1]))
        size = (final.mask_logits.shape[-2], final.mask_logits.shape[-1])
        before = tuple(self._reading(*reading, size, aligned) for reading in readings)
        return Output((*before, final), self.semantic(features, aligned) if self.training else None)

    def semantic(self, features: Sequence[Tensor], aligned: bool) -> Tensor | None:
        """The auxiliary semantic head's logits (B, K+1, …) of the steps' features."""
        if self.semantic_head is None:
            return None
        logits: Tensor = self.semantic_head([F.relu(features[i]) for i in _semantic_inputs(self.layout)], aligned)
        return logits

    def _features(
        self, images: Tensor, aligned: bool, with_readings: bool = False
    ) -> tuple[list[Tensor], Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
        """The feature of every step, not activated; the memory (B, M, N); and with `with_readings`, for every
        dual-path block, the pixels' attention to the slots (B, N, h', w'), their queries (B, f, h', w') and the memory
        (B, M, N) after it."""
        x, memory = self.backbone.stem(images.to(self.memory.dtype)), self.memory.expand(images.shape[0], -1, -1)
        again = self.checkpointing and self.training
        features: list[Tensor] = []
        kept: dict[int, list[Tensor]] = {}
        readings: list[tuple[Tensor, Tensor, Tensor]] = []
        for step, blocks, dual_paths in zip(
            self.layout.steps, [*self.backbone.steps, *self.decoder], self.dual_paths, strict=True
        ):
            if blocks.fuse is not None:
                x = blocks.fuse(x, kept[step.stride][-2:], aligned)
            elif kept.get(step.stride):
                kept[step.stride].pop()  # the step continues the last one and replaces its feature
            for i, block in enumerate(blocks.blocks):
                x = recompute(block, x) if again else block(x)
                if isinstance(dual_paths, nn.ModuleList) and len(dual_paths):
                    dual_path = dual_paths[i]
                    assert isinstance(dual_path, DualPathBlock), "a step has blocks of one kind"
                    seen = dual_path.reading(x, memory) if with_readings else None
                    x, memory = recompute(dual_path, x, memory) if again else dual_path(x, memory)
                    if seen is not None:
                        readings.append((*seen, memory))
            features.append(x)
            kept.setdefault(step.stride, []).append(x)
        return features, memory, readings

    def _reading(
        self, weight: Tensor, query: Tensor, memory: Tensor, size: tuple[int, int], aligned: bool
    ) -> Prediction:
        """The attention in a dual-path block as a prediction at `size`."""
        classes = self.predictor.classify(self.class_embedding(memory))
        masks = resize(weight, size, aligned).clamp(min=torch.finfo(weight.dtype).tiny).log()
        return Prediction(classes, masks, F.normalize(resize(query, size, aligned), dim=1))

    def _initialize(self) -> None:
        """Tables from a normal distribution with σ = 1, cut at ±2σ; convolutions as He et al., except the projections
        to queries, keys and values, which have their own initialization."""
        nn.init.trunc_normal_(self.memory, std=1.0, a=-2.0, b=2.0)
        for name, module in self.named_modules():
            if isinstance(module, RelativePosition):
                nn.init.trunc_normal_(module.table, std=1.0, a=-2.0, b=2.0)
            elif isinstance(module, (nn.Conv1d, nn.Conv2d)) and "qkv" not in name:
                init_he_normal(module.weight)


def _steps(layout: Layout, rates: Sequence[Sequence[float]], heads: int) -> Iterator[StepBlocks]:
    channels, stride = layout.stem[-1], 2
    for step, of_step in zip(layout.steps, rates, strict=True):
        yield StepBlocks(step, channels, stride, of_step, heads, layout.axial_expansion, ACT)
        channels, stride = step.channels, step.stride


def _semantic_inputs(layout: Layout) -> tuple[int, ...]:
    """The steps whose features the semantic head reads: the coarsest, then the first ones at strides 8 and 4; a plain
    head reads the coarsest alone."""
    first = {stride: next(i for i, s in enumerate(layout.steps) if s.stride == stride) for stride in (8, 4)}
    return (layout.semantic, first[8], first[4])


def _semantic_head(options: ModelOptions, layout: Layout, num_classes: int) -> nn.Module | None:
    channels = [layout.steps[i].channels for i in _semantic_inputs(layout)]
    if options.semantic_head == "aspp":
        return AtrousSemanticHead(channels, num_classes + 1, options.semantic_dim, act=ACT)
    if options.semantic_head == "plain":
        return PlainSemanticHead(channels[0], num_classes + 1, options.semantic_dim, act=ACT)
    return None

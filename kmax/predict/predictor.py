"""From a checkpoint and images to panoptic maps, semantic maps and instances.

Letters: H×W padded input, H0×W0 image as given, N queries, K classes without void, h×w mask logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kmax.categories import Categories
from kmax.checkpoint.published import find_published
from kmax.config.trained import TrainedModel, load_trained
from kmax.geometry import Sizes, content_cells
from kmax.images import as_array, resize_and_pad
from kmax.inference.options import InferenceOptions, Thresholds
from kmax.inference.passes import predict, run_network
from kmax.inference.postprocess import instances, panoptic, semantic
from kmax.options import build_options, to_plain
from kmax.predict.runtime import RunnableNetwork, prepare
from kmax.structures import Instances, PanopticMap, Prediction

RESULTS = ("panoptic", "semantic", "instances")
"""Results that a `Predictor` can return."""


@dataclass(frozen=True)
class RawPrediction:
    """The output of the network for one image, from which results follow at any thresholds.

    `stages` are the predictions from coarse to final (only the final one, unless all were asked for), without batch:
    class logits (N, K+1), mask logits (N, h, w), pixel feature (D, h, w; empty where passes were averaged), padding
    included. `sizes` are the sizes of the image on its way.
    """

    stages: tuple[Prediction, ...]
    sizes: Sizes

    @property
    def content(self) -> tuple[Prediction, ...]:
        """The stages without padding."""
        found = []
        for stage in self.stages:
            rows, columns = content_cells(self.sizes, stage.mask_logits.shape[1:])
            masks, feature = (t[:, :rows, :columns] for t in (stage.mask_logits, stage.pixel_feature))
            found.append(Prediction(stage.class_logits, masks, feature))
        return tuple(found)


@dataclass(frozen=True)
class Result:
    """Results of one image, on the CPU and in its own size; None for what was not asked for.

    `semantic` (H0, W0) int32 holds labels 0 … K−1. `raw` is kept where all stages were asked for.
    """

    panoptic: PanopticMap | None = None
    semantic: Tensor | None = None
    instances: Instances | None = None
    raw: RawPrediction | None = None


class Predictor:
    """Segmentation of images with a trained model.

    Args:
        trained: the network with its classes and thresholds.
        size: (H, W) that an image is fitted into and padded to; default: that of training.
        device: where the model runs.
        inference: thresholds and test-time options, which a call may override; default: those of the checkpoint.
    """

    def __init__(
        self,
        trained: TrainedModel,
        size: tuple[int, int] | None = None,
        device: str | torch.device = "cpu",
        inference: InferenceOptions | None = None,
        network: RunnableNetwork | None = None,
    ) -> None:
        self.model = trained.model.to(device).eval()
        self.network: RunnableNetwork = network or self.model
        self.categories: Categories = trained.categories
        self.num_queries = trained.options.model.num_queries
        self.size = _input_size(size, trained)
        self.inference = inference or trained.inference
        self.dataset = trained.options.dataset

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str | torch.device | None = None,
        size: tuple[int, int] | None = None,
        thresholds: Thresholds | Mapping[str, object] | None = None,
        runtime: str = "torch",
        precision: str = "fp32",
    ) -> Predictor:
        """A predictor built from a checkpoint alone; by default on the GPU if there is one.

        Args:
            size: (H, W) of the input, default the one of the checkpoint's dataset.
            thresholds: some or all of `InferenceOptions` (thresholds, and test-time options such as `flip=True`), laid
                over those of the checkpoint.
            runtime, precision: see `kmax.predict.runtime.prepare`.

        Raises:
            FileNotFoundError, ValueError: no such file; damaged or foreign; an unknown device, threshold or runtime.
        """
        chosen = _device(device)
        trained = load_trained(path)
        network = prepare(trained.model, _input_size(size, trained), chosen, runtime, precision)
        return cls(trained, size, chosen, _laid_over(trained.inference, thresholds), network)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        device: str | torch.device | None = None,
        size: tuple[int, int] | None = None,
        thresholds: Thresholds | Mapping[str, object] | None = None,
    ) -> Predictor:
        """A predictor with published weights by their name in the model zoo (`coco_resnet50`), downloaded once; a path
        works as well.

        Args:
            device, size, thresholds: as for `from_checkpoint`.

        Raises:
            ValueError: as `from_checkpoint`; no such name, or weights that cannot be downloaded.
        """
        if not Path(name).exists():
            find_published(name)
        return cls.from_checkpoint(name, device, size, thresholds)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """A name for each prediction, coarse to final, with its stride."""
        return self.model.stage_names

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return next(self.model.parameters()).device

    def __call__(self, image: object, thresholds: Thresholds | Mapping[str, object] | None = None) -> PanopticMap:
        """Segment one image: a path, a PIL image, or a (H0, W0, 3) uint8 RGB array.

        Args:
            thresholds: for this call; a mapping changes some and leaves the others as they are.

        Returns:
            A map of the image's own size, on the CPU.

        Raises:
            FileNotFoundError, ValueError: no such file; not such an image.
        """
        result = self.batch([image], thresholds=thresholds)[0].panoptic
        assert result is not None, "a panoptic map was asked for"
        return result

    def batch(
        self,
        images: Sequence[object],
        results: Sequence[str] = ("panoptic",),
        thresholds: Thresholds | Mapping[str, object] | None = None,
        all_stages: bool = False,
        top: int = 100,
    ) -> list[Result]:
        """Segment several images of any sizes in one pass of the network.

        Args:
            images, thresholds: as for a call.
            results: some of `RESULTS`.
            all_stages: also keep the predictions of all layers, for `kmax.visualization.draw_cluster_viewer`.
            top: the number of (query, class) pairs that instances are made of.

        Raises:
            FileNotFoundError, ValueError: as for a call; an unknown result or threshold.
        """
        chosen = _laid_over(self.inference, thresholds)
        return [self.finish(raw, results, chosen, all_stages, top) for raw in self.raw(images, all_stages, chosen)]

    @torch.inference_mode()
    def raw(
        self,
        images: Sequence[object],
        all_stages: bool = False,
        thresholds: Thresholds | Mapping[str, object] | None = None,
    ) -> list[RawPrediction]:
        """Run only the network; `finish` turns its output into results, as often as needed.

        With test-time options images go through the network one by one.

        Raises:
            ValueError: test-time options with `all_stages`.
        """
        if not images:
            return []
        arrays = [as_array(image) for image in images]
        options = _laid_over(self.inference, thresholds)
        if not options.plain:
            if all_stages:
                raise ValueError("The predictions of all layers come from one plain pass: leave flip, scales and pad.")
            return [self._averaged(array, options) for array in arrays]
        padded, valid = zip(*(resize_and_pad(array, self.size) for array in arrays), strict=True)
        pixels = torch.as_tensor(np.stack(padded)).permute(0, 3, 1, 2).to(self.device)
        mask = torch.as_tensor(np.stack(valid)).to(self.device)
        predictions = run_network(self.network, pixels, mask, all_stages)
        return [
            RawPrediction(
                tuple(Prediction(*(tensor[i] for tensor in stage)) for stage in predictions),
                Sizes.fit(self.size, array.shape[:2]),
            )
            for i, array in enumerate(arrays)
        ]

    def _averaged(self, image: np.ndarray, options: InferenceOptions) -> RawPrediction:
        classes, masks, sizes = predict(self.network, image, self.size, options, self.device)
        return RawPrediction((Prediction(classes, masks, masks.new_zeros(0)),), sizes)

    def finish(
        self,
        raw: RawPrediction,
        results: Sequence[str] = ("panoptic",),
        thresholds: Thresholds | Mapping[str, object] | None = None,
        keep_raw: bool = False,
        top: int = 100,
    ) -> Result:
        """The results that follow from the output of the network; the arguments are those of `batch`.

        Raises:
            ValueError: an unknown result or threshold.
        """
        unknown = sorted(set(results) - set(RESULTS))
        if unknown:
            raise ValueError(f"A predictor knows no result {', '.join(unknown)}: choose from {', '.join(RESULTS)}.")
        chosen, things = _laid_over(self.inference, thresholds), self.categories.is_thing
        classes, masks = raw.stages[-1].class_logits, raw.stages[-1].mask_logits
        found: dict[str, Any] = {}
        if "panoptic" in results:
            made = panoptic(classes, masks, things, chosen, raw.sizes)
            found["panoptic"] = PanopticMap(made.segment_map.cpu(), made.segments)
        if "semantic" in results:
            found["semantic"] = semantic(classes, masks, raw.sizes, chosen).cpu()
        if "instances" in results:
            one = instances(classes, masks, things, chosen, raw.sizes, top)
            found["instances"] = Instances(one.size, one.runs, one.labels.cpu(), one.scores.cpu())
        return Result(**found, raw=raw if keep_raw else None)


def _laid_over(base: InferenceOptions, over: Thresholds | Mapping[str, object] | None) -> InferenceOptions:
    """Thresholds and test-time options with some of them changed.

    Raises:
        OptionError: a name or value that `InferenceOptions` does not know.
    """
    if over is None or isinstance(over, InferenceOptions):
        return over or base
    changes = to_plain(over) if isinstance(over, Thresholds) else over
    return build_options(InferenceOptions, {**to_plain(base), **changes}, "inference.")


def _input_size(size: object, trained: TrainedModel) -> tuple[int, int]:
    chosen = trained.options.dataset.size if size is None else size
    match chosen:
        case [int(height), int(width)] if min(height, width) >= 32:
            return height, width
    raise ValueError(f"size={chosen} must be height and width of the input, at least 32 each, e.g. size=(641, 641).")


def _device(device: str | torch.device | None) -> torch.device:
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device} cannot be used here ({reason}): choose cpu, cuda, cuda:0, …") from error
    return chosen

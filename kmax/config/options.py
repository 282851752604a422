"""The roots of the configuration, one per program, made from the options that the packages declare. Imports no
torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from kmax.data.options import DatasetOptions
from kmax.inference.options import InferenceOptions
from kmax.losses.options import LossOptions
from kmax.metrics.options import LOGGED, METRICS
from kmax.model.options import BackboneOptions, ModelOptions
from kmax.optim.options import OptimizerOptions
from kmax.options import REQUIRED, OptionError, Options, Plain, option, section
from kmax.strategy.options import StrategyOptions

DEVICES = "auto, cpu, cuda, cuda:0, …"
RUNTIMES = ("torch", "compile", "onnx")
PRECISIONS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class TrainerOptions(Options):
    """How often a run validates, logs and saves, in optimizer steps."""

    val_every_steps: int = option(REQUIRED, "steps between two validations", at_least=1)
    save_every_steps: int = option(500, "steps between two checkpoints for resuming", at_least=1)
    log_every_steps: int = option(50, "steps between two lines of metrics.csv", at_least=1)
    limit_val_batches: int | float | None = option(
        None, "number of validation batches, or a fraction of them; null: all", above=0
    )
    num_sanity_val_steps: int = option(0, "validation batches before training", at_least=0)
    val_metrics: list[str] = option(["pq"], "what validation measures", choices=METRICS)
    enable_progress_bar: bool = option(True, "show the progress")

    def __post_init__(self) -> None:
        super().__post_init__()
        limit = self.limit_val_batches
        if isinstance(limit, float) and limit > 1 and not limit.is_integer():
            raise OptionError(f"limit_val_batches={limit} must be an integer, or a fraction of 1.")
        if not self.val_metrics:
            raise OptionError(f"val_metrics=[] must be one or more of {', '.join(METRICS)}.")


@dataclass(frozen=True)
class PlanOptions(Options):
    """Values that follow from hardware and experiment together; computed, not to be set."""

    total_devices: int = option("${plan:total_devices}", "devices of all nodes")
    batch_size_per_device: int = option("${plan:batch_size_per_device}", "images a device holds at once")
    accumulate: int = option("${plan:accumulate}", "batches accumulated for a step")
    effective_batch: int = option("${plan:effective_batch}", "images per step")


@dataclass(frozen=True)
class TrainOptions(Options):
    """`train.py`: a run, from the network to the hardware."""

    backbone: BackboneOptions = section(BackboneOptions, "the backbone")
    dataset: DatasetOptions = section(DatasetOptions, "the data")
    model: ModelOptions = section(ModelOptions, "the network")
    loss: LossOptions = section(LossOptions, "the losses")
    optimizer: OptimizerOptions = section(OptimizerOptions, "the optimizer")
    inference: InferenceOptions = section(InferenceOptions, "thresholds and test-time options of validation")
    strategy: StrategyOptions = section(StrategyOptions, "the hardware")
    trainer: TrainerOptions = section(TrainerOptions, "how often the run validates, logs and saves")
    callbacks: Plain = option({}, "callbacks by name, each with its _target_")
    logger: Plain = option({}, "loggers by name, each with its _target_")
    plan: PlanOptions = section(PlanOptions, "values that follow from hardware and experiment")
    name: str = option("kmax", "name of the run, whose folder is runs/NAME/…")
    seed: int = option(1, "seed of initialization, order and augmentation", at_least=0, at_most=2**32 - 1)
    init_from: str | None = option(None, "start from the weights of this checkpoint")
    resume: str | None = option("auto", "auto: continue the run in the folder; never; or a checkpoint")
    metric: str = option("val/pq", "metric of best.ckpt and of sweeps")

    def __post_init__(self) -> None:
        super().__post_init__()
        names = {f"val/{logged}": metric for metric, several in LOGGED.items() for logged in several}
        if self.metric not in names:
            raise OptionError(f"metric={self.metric} must be one of {', '.join(names)}.")
        if names[self.metric] not in self.trainer.val_metrics:
            raise OptionError(
                f"metric={self.metric} is not measured: set trainer.val_metrics="
                f"[{','.join([*self.trainer.val_metrics, names[self.metric]])}], or choose another metric."
            )


def _check_submission(name: str | None, has_pictures: bool, needed: str) -> None:
    """The name of a submission is part of a file's name, and needs panoptic PNG files."""
    if name is None:
        return
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise OptionError(f"submission={name} must be letters, digits, '_', '-' and '.', e.g. test-dev2017_kmax.")
    if not has_pictures:
        raise OptionError(f"submission={name} is made of panoptic PNG files: it needs {needed}.")


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """`evaluate.py`: a checkpoint is measured; `dataset` and `inference` are laid over what it carries."""

    ckpt: str = option(REQUIRED, "the checkpoint")
    dataset: Plain = option({}, "options that replace the checkpoint's, e.g. dataset.root=data/coco")
    inference: Plain = option({}, "thresholds and test-time options that replace the checkpoint's")
    strategy: StrategyOptions = section(StrategyOptions, "the hardware")
    metrics: list[str] = option(list(METRICS), "what is measured", choices=METRICS)
    batch_size: int = option(1, "images per pass", at_least=1)
    precision: str | None = option(None, "of the network; null: strategy.precision", choices=PRECISIONS)
    save_predictions: bool = option(False, "write panoptic PNG files and COCO JSON, too")
    gallery: bool = option(False, "write gallery.html: the worst images with ground truth, prediction and errors")
    gallery_images: int = option(24, "number of images in the gallery", at_least=1, at_most=1000)
    limit: int | None = option(None, "use only this many images from the beginning", at_least=1)
    submission: str | None = option(None, "with save_predictions: write panoptic_…_results.zip, e.g. val2017_kmax")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_submission(self.submission, self.save_predictions, "save_predictions=true")


@dataclass(frozen=True)
class TrackingOptions(Options):
    """`track=true`: how similar a segment must be to a thing of earlier frames to be that thing again.

    The similarity is cos(features) · exp(−distance of the boxes / `distance`), between 0 and 1.
    """

    threshold: float = option(0.3, "similarity that a match must exceed", at_least=0, at_most=1)
    distance: float = option(1.0, "shift of a box, in image sizes, that divides the similarity by e", above=0)
    memory: float = option(
        0.8, "weight of the frames before in the average of a thing's features", at_least=0, at_most=1
    )
    forget_after: int = option(60, "frames without the thing after which it is forgotten", at_least=1)


@dataclass(frozen=True)
class PredictOptions(Options):
    """`predict.py`: images, folders, videos or a camera are segmented."""

    ckpt: str = option(REQUIRED, "the checkpoint")
    input: Any = option(REQUIRED, "image, folder, 'glob/*.jpg', list.txt, video, webcam, or [several,of,these]")
    output: str | None = option(None, "folder of the results; null: runs/predict/NAME OF THE INPUT")
    outputs: list[str] = option(
        ["overlay", "panoptic", "segments", "video"],
        "what is written, see above; docs/predict.md shows each",
        choices=("overlay", "panoptic", "semantic", "instances", "segments", "video", "annotations", "label_studio"),
    )
    inference: Plain = option({}, "thresholds and test-time options that replace the checkpoint's")
    size: tuple[int, int] | None = option(None, "height and width of the input; null: the checkpoint's", at_least=32)
    batch_size: int = option(1, "images per pass", at_least=1)
    limit: int | None = option(None, "predict only this many new images", at_least=1)
    device: str = option("auto", DEVICES)
    runtime: str = option("torch", "how the network is run; onnx on the CPU in fp32 only", choices=RUNTIMES)
    precision: str = option("fp32", "of the network; half precision is for GPUs", choices=PRECISIONS)
    num_workers: int = option(2, "number of threads that read, and of threads that write", at_least=0)
    top_instances: int = option(100, "(query, class) pairs that instances are made of", at_least=1)
    overwrite: bool = option(False, "delete earlier results in the folder")
    scores: bool = option(False, "write the score of each segment on its overlay, after the name of the class")
    track: bool = option(False, "ids and colors of things stay from frame to frame, in videos and sequences of images")
    tracking: TrackingOptions = section(TrackingOptions, "how things are recognized")
    polygon_tolerance: float = option(1.0, "pixels that polygons of annotations may deviate; 0: exact", at_least=0)
    rle_holes: bool = option(False, "annotations: segments with holes as run-length codes, not as polygons")
    submission: str | None = option(
        None, "write panoptic_…_results.zip for an evaluation server, e.g. test-dev2017_kmax"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_submission(self.submission, "panoptic" in self.outputs, "panoptic among outputs")
        if self.scores and not {"overlay", "video"} & set(self.outputs):
            raise OptionError("scores=true writes on overlays: add overlay or video to outputs.")
        if not self.track:
            if self.tracking != TrackingOptions():
                raise OptionError("tracking.… has no effect by itself: add track=true.")
            return
        if self.runtime == "onnx":
            raise OptionError(
                "track=true compares pixel features, which runtime=onnx leaves out: choose runtime=torch."
            )
        if set(self.outputs) <= {"semantic", "instances"}:
            shown = ",".join(self.outputs)
            raise OptionError(
                f"track=true changes nothing in outputs=[{shown}]: add overlay, video, panoptic or segments."
            )


@dataclass(frozen=True)
class ExportOptions(Options):
    """`export.py`: a checkpoint becomes a file for deployment, and is compared with it."""

    ckpt: str = option(REQUIRED, "the checkpoint")
    format: str = option("onnx", "ONNX, torch.export, or compiled by AOTInductor", choices=("onnx", "pt2", "aoti"))
    output: str | None = option(None, "the file; null: beside the checkpoint")
    batch: Any = option("dynamic", "dynamic, or a number of images")
    size: tuple[int, int] | None = option(None, "height and width of the input; null: the checkpoint's", at_least=33)
    pictures: str | None = option(None, "folder of images to compare on; null: drawn shapes")
    count: int = option(10, "how many of them", at_least=1)
    tolerance: float = option(1e-4, "relative deviation of the logits that is accepted", above=0)
    postprocess: bool = option(False, "one image of any size in, its segments out: for onnx and pt2")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.postprocess and self.format == "aoti":
            raise OptionError("postprocess=true is for format=onnx and format=pt2: choose one of them.")
        if self.postprocess and self.batch not in ("dynamic", 1, "1"):
            raise OptionError(f"postprocess=true takes one image at a time: leave out batch={self.batch}.")


@dataclass(frozen=True)
class DemoOptions(Options):
    """`demo.py`: a checkpoint in the browser."""

    ckpt: str = option("runs/demo/checkpoints/best.ckpt", "the checkpoint; the default is what make demo trains")
    compare: str | None = option(None, "a second checkpoint, for the tab that compares; null: two thresholds")
    examples: str | None = option(None, "folder of example images; null: the dataset's own")
    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 for all")
    port: int | None = option(None, "port; null: the first free one from 7860 on", at_least=0, at_most=65535)
    device: str = option("auto", DEVICES)
    size: tuple[int, int] | None = option(None, "height and width of the input; null: the checkpoint's", at_least=32)
    max_upload_mb: int = option(20, "largest upload in megabytes", at_least=1)
    max_megapixels: float = option(40.0, "largest image in megapixels", above=0)

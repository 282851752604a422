"""Trained models as files that run without kmax: ONNX, a `torch.export` package, or compiled by AOTInductor.

An exported model takes images (B, H, W, 3) uint8 RGB and `content` (B, 2) int64, the rows and columns of each image
that are not padding; it returns class logits (B, N, K+1) and mask logits (B, N, h, w) of the final prediction, float32.
`kmax.predict.serving` makes such inputs from images and a panoptic segmentation from the outputs.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from kmax.config.trained import TrainedModel
from kmax.files import Json, replacing
from kmax.geometry import Sizes
from kmax.inference import postprocess
from kmax.inference.options import Thresholds
from kmax.inference.passes import run_network
from kmax.predict import serving
from kmax.predict.serving import Description

FORMATS = {"onnx": ".onnx", "pt2": ".pt2", "aoti": ".aoti.pt2"}
"""Suffix of each format's files."""
INPUTS = ("images", "content")
OUTPUTS = ("class_logits", "mask_logits")
METADATA = "kmax"
"""The key under which a file carries its `Description`."""

Run = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class ExportableModel(nn.Module):
    """From bytes to the logits of the final prediction; nothing else is computed."""

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.model = trained.model

    def forward(self, images: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """See the module's docstring."""
        rows, columns = (torch.arange(images.shape[axis], device=images.device) for axis in (1, 2))
        valid = (rows < content[:, :1])[:, :, None] & (columns < content[:, 1:])[:, None, :]
        final = run_network(self.model, images.permute(0, 3, 1, 2), valid)[-1]
        return final.class_logits, final.mask_logits


TIE = 100
"""Factor of the tolerance that applies if a pixel changes its cluster, which moves the logits of an image further."""


@dataclass(frozen=True)
class Parity:
    """An exported model against eager PyTorch: the largest deviation of a class or mask logit, relative to the largest
    logit of its kind in the image; the number of `images`, of those that deviate `beyond` the tolerance, and of
    `identical` panoptic maps; and the pixels that differ."""

    deviation: float
    images: int
    beyond: int
    identical: int
    differing_pixels: int


def describe(trained: TrainedModel, size: tuple[int, int]) -> Description:
    """The description that the exported file carries."""
    categories = trained.categories
    return Description(size, tuple(categories.names), tuple(categories.is_thing), _thresholds(trained))


def _thresholds(trained: TrainedModel) -> Json:
    """The thresholds for `serving.panoptic`, without test-time options that run the network again."""
    return {field.name: getattr(trained.inference, field.name) for field in fields(Thresholds)}


def export_model(
    trained: TrainedModel,
    path: str | Path,
    format: str,
    size: tuple[int, int],
    batch: int | str,
    images: Iterable[np.ndarray],
    tolerance: float = 1e-4,
) -> Parity:
    """Export to a temporary file, compare with eager on `images`, and only then move the file to `path`.

    Args:
        format: `onnx`, `pt2` or `aoti`.
        size: (H, W) of the input.
        batch: a number, or `dynamic`.
        images: (H0, W0, 3) uint8 RGB, of any sizes.
        tolerance: how far an image's logits may deviate. One image in ten may deviate up to `TIE` times as far: if
            two queries are equally near to a pixel, rounding decides the k-means assignment, also in eager float32.

    Raises:
        ValueError: an unknown format, an impossible size or batch, a missing extra or compiler, or a deviation
            beyond `tolerance` in more than a tenth of the images, or beyond `TIE` times that in any.
    """
    path = Path(path)
    write, load = _backend(format)
    model = ExportableModel(trained).cpu().eval()
    with replacing(path) as temporary:
        with quiet():
            write(_program(model, size, batch), describe(trained, size), temporary)
        count = 1 if batch == "dynamic" else int(batch)
        parity = compare(model, load(temporary), trained, size, count, images, tolerance)
        if parity.beyond > parity.images // 10 or not parity.deviation <= TIE * tolerance:
            raise ValueError(
                f"The exported model deviates from eager by up to {parity.deviation:.1e}, in {parity.beyond} of "
                f"{parity.images} images beyond tolerance={tolerance:.0e}: nothing was written."
            )
    return parity


def _program(model: nn.Module, size: tuple[int, int], batch: int | str) -> ExportedProgram:
    """The model as a `torch.export` program."""
    dynamic = batch == "dynamic"
    if not dynamic and (not str(batch).isdigit() or int(batch) < 1):
        raise ValueError(f"batch={batch} is unknown: give a number of images, or dynamic.")
    if min(size) < 33:
        raise ValueError(f"size={list(size)} is too small: the coarsest feature has stride 32, so give at least 33.")
    count = 2 if dynamic else int(batch)  # with a single image, torch.export would assume that the axis is constant
    images = torch.zeros(count, *size, 3, dtype=torch.uint8)
    content = torch.tensor([list(size)] * count)
    axis = {0: torch.export.Dim("batch")}
    shapes = {"images": axis, "content": axis} if dynamic else None
    with torch.no_grad():
        model(images[:1], content[:1])  # says clearly what is wrong with a size
        return torch.export.export(model, (images, content), dynamic_shapes=shapes)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' own deprecation warnings, which no user can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (FutureWarning, DeprecationWarning))
        yield


def _backend(format: str) -> tuple[Callable[[ExportedProgram, Description, Path], None], Callable[[Path], Run]]:
    """The functions that write a format and that load a file of it.

    Raises:
        ValueError: unknown, or something that it needs is missing.
    """
    if format not in FORMATS:
        raise ValueError(f"format={format} is unknown: choose one of {', '.join(FORMATS)}.")
    if format == "onnx":
        try:
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ModuleNotFoundError as error:
            raise ValueError(f"format=onnx needs {error.name}: pip install 'kmax-deeplab[export]'.") from error
        return write_onnx, load_onnx
    if format == "aoti" and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        raise ValueError("format=aoti needs a C++ compiler (g++ or clang++): install one, or use format=pt2.")
    return (write_pt2, load_pt2) if format == "pt2" else (_write_aoti, load_aoti)


def write_onnx(
    program: ExportedProgram,
    description: Description,
    path: Path,
    inputs: Sequence[str] = INPUTS,
    outputs: Sequence[str] = OUTPUTS,
) -> None:
    """Write an ONNX file that carries its description."""
    result = torch.onnx.export(program, input_names=inputs, output_names=outputs, dynamo=True, verbose=False)
    assert result is not None, "the dynamo exporter returns the model"
    result.model.metadata_props[METADATA] = description.to_json()
    result.save(str(path), external_data=False)


def write_pt2(program: ExportedProgram, description: Description, path: Path) -> None:
    """Write a `torch.export` package that carries its description."""
    torch.export.save(program, path, extra_files={METADATA: description.to_json()})


def _write_aoti(program: ExportedProgram, description: Description, path: Path) -> None:
    options = {"aot_inductor.metadata": {METADATA: description.to_json()}}
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


def load_onnx(path: str | Path) -> Run:
    """An ONNX file on onnxruntime's CPU provider."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda *inputs: tuple(session.run(list(OUTPUTS), dict(zip(INPUTS, inputs, strict=True))))


def load_pt2(path: str | Path) -> Run:
    """A `torch.export` package, on the CPU."""
    return _with_numpy(torch.export.load(path).module())


def load_aoti(path: str | Path) -> Run:
    """A package compiled by AOTInductor for this kind of machine."""
    return _with_numpy(torch._inductor.aoti_load_package(str(path)))


def _with_numpy(model: Callable[..., tuple[Tensor, Tensor]]) -> Run:
    def run(images: np.ndarray, content: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            classes, masks = model(torch.as_tensor(images), torch.as_tensor(content))
        return classes.numpy(), masks.numpy()

    return run


def compare(
    model: nn.Module,
    run: Run,
    trained: TrainedModel,
    size: tuple[int, int],
    batch: int,
    images: Iterable[np.ndarray],
    tolerance: float,
) -> Parity:
    """Run both on `images`, `batch` at a time (a short last batch is filled up with its first image).

    The eager map comes from `kmax.inference.postprocess`, the exported one from `kmax.predict.serving`: the whole path
    is compared.
    """
    everything = list(images)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    deviations: list[float] = []
    for start in range(0, len(everything), batch):
        some = everything[start : start + batch]
        inputs = serving.prepare([*some, *some[:1] * (batch - len(some))], size)
        with torch.no_grad():
            eager = model(*map(torch.as_tensor, inputs))
        exported = run(*inputs)
        for i, image in enumerate(some):
            both = [(ours[i].numpy(), theirs[i]) for ours, theirs in zip(eager, exported, strict=True)]
            deviations.append(max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in both))
            pairs.append(_maps(trained, size, image.shape[:2], [x[i] for x in eager], [x[i] for x in exported]))
    differing = [int((first != second).sum()) for first, second in pairs]
    beyond = sum(not deviation <= tolerance for deviation in deviations)  # NaN is beyond, too
    return Parity(max(deviations), len(pairs), beyond, differing.count(0), sum(differing))


def _maps(
    trained: TrainedModel,
    size: tuple[int, int],
    original: tuple[int, ...],
    eager: list[Tensor],
    exported: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The segment maps (H0, W0) of one image: of eager logits by torch, of exported logits by NumPy."""
    is_thing, thresholds = trained.categories.is_thing, trained.inference
    sizes = Sizes.fit(size, original)
    ours = postprocess.panoptic(eager[0], eager[1], is_thing, thresholds, sizes)
    theirs, _ = serving.panoptic(exported[0], exported[1], is_thing, size, sizes.original, **_thresholds(trained))
    return ours.segment_map.numpy(), theirs

"""The ways to run a trained network: eager, compiled, or by ONNX Runtime; in full or in half precision.

Letters: B batch, H×W input size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kmax.config.options import RUNTIMES
from kmax.model import Network
from kmax.model.folding import fold_batch_norms
from kmax.structures import Output, Prediction

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
RunnableNetwork = Callable[..., Output]
"""Takes normalized images (B, 3, H, W) and `coarse`, as the networks of `kmax.model` do."""


def prepare(
    model: Network, size: tuple[int, int], device: torch.device, runtime: str = "torch", precision: str = "fp32"
) -> RunnableNetwork:
    """Make a trained model ready to predict. `model` itself changes: it moves, its batch norms are folded.

    Args:
        size: (H, W) of the input, the only one that `onnx` takes.
        device: where it runs; `onnx` runs on the CPU.
        runtime: `torch`, `compile` (the first image of a size takes minutes), or `onnx` (final prediction only).
        precision: `fp32`, or autocast to `fp16` or `bf16`.

    Raises:
        ValueError: an unknown runtime or precision, options that do not go together, or an extra that is missing.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime={runtime} is unknown: choose one of {', '.join(RUNTIMES)}.")
    if precision not in DTYPES:
        raise ValueError(f"precision={precision} is unknown: choose one of {', '.join(DTYPES)}.")
    model.eval()
    fold_batch_norms(model)
    if runtime == "onnx":
        if precision != "fp32" or device.type != "cpu":
            raise ValueError("runtime=onnx runs on the CPU in fp32: set device=cpu precision=fp32, or runtime=compile.")
        return OnnxNetwork(model.cpu(), size)
    model.to(device).to(memory_format=torch.channels_last)
    if runtime == "compile":
        model.compile()
    return _Eager(model, device, DTYPES[precision])


class _Eager:
    """The model itself, in a precision and with features laid out channels last."""

    def __init__(self, model: Network, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.device, self.dtype = model, device, dtype

    def __call__(self, images: Tensor, coarse: bool = True) -> Output:
        images = images.to(memory_format=torch.channels_last)
        if self.dtype == torch.float32:
            output: Output = self.model(images, coarse=coarse)
            return output
        with torch.autocast(self.device.type, self.dtype):
            output = self.model(images, coarse=coarse)
        return output


class OnnxNetwork:
    """The final prediction by ONNX Runtime, for images of one size and any number.

    Raises:
        ValueError: ONNX's packages are missing; or, in a call, images of another size, or all predictions.
    """

    def __init__(self, model: Network, size: tuple[int, int]) -> None:
        try:
            import onnxruntime
            import onnxscript  # noqa: F401  the exporter needs it
        except ImportError as error:
            raise ValueError("runtime=onnx needs the extra `export`: pip install -e '.[export]'.") from error
        self.size = size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            _export(_Final(model), size, path)
            self.session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor, coarse: bool = True) -> Output:
        if coarse:
            raise ValueError("runtime=onnx computes the final prediction only: choose runtime=torch for all stages.")
        if tuple(images.shape[-2:]) != self.size:
            raise ValueError(
                f"runtime=onnx takes images of {self.size[0]}×{self.size[1]} only: leave inference.scales and "
                "inference.pad as they are, or choose runtime=torch."
            )
        classes, masks = (torch.from_numpy(x) for x in self.session.run(None, {"images": images.numpy()}))
        return Output((Prediction(classes, masks, masks.new_zeros(len(masks), 0, *masks.shape[2:])),))


class _Final(nn.Module):
    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        final = self.model(images, coarse=False).predictions[-1]
        return final.class_logits, final.mask_logits


def _export(model: nn.Module, size: tuple[int, int], path: Path) -> None:
    images = torch.zeros(2, 3, *size)  # with a single image, the exporter would assume that the axis is constant
    with torch.no_grad():
        program = torch.export.export(model, (images,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
        result = torch.onnx.export(program, input_names=["images"], dynamo=True, verbose=False)
    assert result is not None, "the dynamo exporter returns the model"
    result.save(str(path), external_data=False)

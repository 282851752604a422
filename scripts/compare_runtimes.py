"""What a runtime or a smaller number format costs in PQ and saves in time, on a CPU:

    python scripts/compare_runtimes.py best.ckpt --limit 128 --keep quantized

One checkpoint is run by PyTorch (fp32, bf16), ONNX Runtime (fp32, int8) and, where it is installed, OpenVINO, on the
same validation images, taken in turn image by image, so that a busy machine slows all of them. int8 is static: weights
per channel and activations of all convolutions, calibrated on `--calibration` training images. `--keep` names a folder
for the ONNX files.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kmax.config.build import build_datamodule
from kmax.config.explain import run_or_explain
from kmax.config.pretrained import checkpoint_path
from kmax.config.trained import TrainedModel, load_trained
from kmax.geometry import Sizes
from kmax.inference.postprocess import panoptic
from kmax.metrics import PanopticQuality
from kmax.predict import export, serving

Run = Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]]


def torch_run(trained: TrainedModel, half: bool) -> Run:
    """PyTorch in fp32, or with bf16 in autocast."""
    model = export.ExportableModel(trained).eval()

    def run(images: np.ndarray, content: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return [x.float().numpy() for x in model(torch.from_numpy(images), torch.from_numpy(content))]

    return run


def openvino_run(path: Path, threads: int) -> Run:
    """OpenVINO in fp32 on the exported file."""
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", options)
    return lambda images, content: [model([images, content])[name] for name in export.OUTPUTS]


def onnx_run(path: Path, threads: int) -> Run:
    """ONNX Runtime on a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images, content: list(session.run(export.OUTPUTS, {"images": images, "content": content}))


def quantize(source: Path, target: Path, inputs: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write a file whose convolutions compute in int8."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            one = next(inputs, None)
            return None if one is None else dict(zip(export.INPUTS, one, strict=True))

    simple = target.with_name(f"simple-{target.name}")
    quant_pre_process(str(source), str(simple), skip_symbolic_shape=True)
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    quantize_static(str(simple), str(target), Reader(), op_types_to_quantize=["Conv"], **kinds)
    simple.unlink()


def runtimes(trained: TrainedModel, folder: Path, images: list[np.ndarray], threads: int) -> dict[str, Run]:
    """Every way to run the checkpoint, by name; `images` are for the parity check and for calibration."""
    size = trained.options.dataset.size
    exact, small = folder / "fp32.onnx", folder / "int8.onnx"
    export.export_model(trained, exact, "onnx", size, 1, images[:10])
    quantize(exact, small, (serving.prepare([image], size) for image in images))
    found = {
        "torch fp32": torch_run(trained, False),
        "torch bf16": torch_run(trained, True),
        "onnxruntime fp32": onnx_run(exact, threads),
        "onnxruntime int8": onnx_run(small, threads),
    }
    try:
        return {**found, "openvino fp32": openvino_run(exact, threads)}
    except ModuleNotFoundError:
        print("openvino is not installed: pip install openvino")
        return found


def measure(trained: TrainedModel, runs: dict[str, Run], samples: Iterator[Any]) -> dict[str, tuple[float, float]]:
    """PQ in percent and the median milliseconds of the network per image, by name."""
    size, things = trained.options.dataset.size, trained.categories.is_thing
    quality = {name: PanopticQuality(things) for name in runs}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for sample in samples:
        inputs = serving.prepare([sample.image], size)
        sizes = Sizes.fit(size, sample.image.shape[:2])
        for name, run in runs.items():
            start = time.perf_counter()
            classes, masks = run(*inputs)
            times[name].append(1000 * (time.perf_counter() - start))
            one, other = (torch.from_numpy(np.array(x[0])) for x in (classes, masks))
            quality[name].update([panoptic(one, other, things, trained.inference, sizes)], [sample])
    return {name: (float(quality[name].compute().all.pq or 0), float(np.median(times[name]))) for name in runs}


def compare(arguments: argparse.Namespace) -> None:
    """Measure, and print a table."""
    torch.set_num_threads(arguments.threads)
    trained = load_trained(checkpoint_path(arguments.checkpoint))
    data = build_datamodule(trained.options, trained.categories)
    training, validation = data.train(), data.val()
    images = [training[i].image for i in range(min(arguments.calibration, len(training)))]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        runs = runtimes(trained, folder, images, arguments.threads)
        found = measure(trained, runs, (validation[i] for i in range(min(arguments.limit, len(validation)))))
        base = found["onnxruntime fp32"][1]
        print(f"{'':18} {'PQ':>6} {'ms':>8} {'ratio':>6}   ({arguments.threads} threads)")
        for name, (quality, milliseconds) in found.items():
            print(f"{name:18} {quality:6.2f} {milliseconds:8.1f} {milliseconds / base:6.2f}")
        for file in sorted(folder.glob("*.onnx")):
            print(f"{file.name:18} {file.stat().st_size / 2**20:.1f} MiB")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("--limit", type=int, default=128, help="validation images (%(default)s)")
    parser.add_argument("--calibration", type=int, default=64, help="training images for int8 (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of every runtime (%(default)s)")
    parser.add_argument("--keep", metavar="FOLDER", help="where the ONNX files stay")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_or_explain(compare, parse())

"""A file like an exported model's without a network: masks are the colors of the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kmax.predict.serving import Description

SIZE = (128, 128)
DESCRIPTION = Description(
    SIZE,
    ("red", "green", "blue"),
    (True, True, False),
    {"thing_threshold": 0.5, "stuff_threshold": 0.5, "overlap": 0.5, "pixel_threshold": 0.4},
)


def write(path: Path) -> Path:
    """Three queries, one per color; the mask logits (B, 3, 32, 32) are a convolution's, a mean of 4×4 pixels."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.zeros((3, 3, 4, 4), np.float32)
    kernel[[0, 1, 2], [0, 1, 2]] = 0.1 / 16
    classes = np.full((1, 3, 4), -5, np.float32)
    classes[0, [0, 1, 2], [0, 1, 2]] = 5
    values: dict[str, np.ndarray] = {
        "kernel": kernel,
        "classes": classes,
        "nothing": np.zeros(1, np.float32),
        "shape": np.array([0, 3, 1], np.int64),
    }
    weights = [numpy_helper.from_array(value, name) for name, value in values.items()]
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["mask_logits"], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["mask_logits"], ["mean"]),
        helper.make_node("Reshape", ["mean", "shape"], ["means"]),
        helper.make_node("Mul", ["means", "nothing"], ["zeros"]),
        helper.make_node("Add", ["zeros", "classes"], ["class_logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *SIZE, 3]),
        helper.make_tensor_value_info("content", TensorProto.INT64, ["batch", 2]),
    ]
    outputs = [
        helper.make_tensor_value_info("class_logits", TensorProto.FLOAT, ["batch", 3, 4]),
        helper.make_tensor_value_info("mask_logits", TensorProto.FLOAT, ["batch", 3, 32, 32]),
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"kmax": DESCRIPTION.to_json()})
    onnx.save(model, path)
    return path


def picture(seed: int) -> np.ndarray:
    """An image of a size of its own, with a patch of another color."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(40, 200, 2)
    image = np.zeros((height, width, 3), np.uint8)
    first, second = rng.permutation(3)[:2]
    image[..., first] = 200
    image[height // 4 : height // 2, : width // 2] = 0
    image[height // 4 : height // 2, : width // 2, second] = 220
    return image

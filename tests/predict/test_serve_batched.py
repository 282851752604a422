"""The example server: concurrent requests are answered like single ones, from fewer passes than images."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_onnx
from conftest import ROOT
from kmax.predict import serving

PICTURES = [tiny_onnx.picture(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server that waits a second for others, and takes at most four."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    path = tiny_onnx.write(tmp_path_factory.mktemp("served") / "model.onnx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "scripts/serve_batched.py", str(path), str(port), "4", "1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def ask(address: str, data: bytes) -> dict:
    with urllib.request.urlopen(urllib.request.Request(address, data=data), timeout=60) as answer:
        return dict(json.load(answer))


@pytest.mark.long
def test_concurrent_clients_share_passes_and_get_their_own_answers(server: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(len(PICTURES)) as clients:
        answers = list(clients.map(lambda picture: ask(server, png(picture)), PICTURES))
    assert max(answer["batch"] for answer in answers) == 4
    assert sum(1 / answer["batch"] for answer in answers) <= 6, "passes of the network for twelve images"
    import onnxruntime

    session = onnxruntime.InferenceSession(tiny_onnx.write(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    model = tiny_onnx.DESCRIPTION
    for picture, answer in zip(PICTURES, answers, strict=True):
        images, content = serving.prepare([picture], model.size)
        classes, masks = session.run(["class_logits", "mask_logits"], {"images": images, "content": content})
        size = picture.shape[:2]
        expected, segments = serving.panoptic(
            classes[0], masks[0], model.is_thing, model.size, size, **model.thresholds
        )
        assert len(segments) == 2
        assert [row["class"] for row in answer["segments"]] == [model.names[s.label] for s in segments]
        found = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["map"]))))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.long
def test_what_is_no_image_is_refused_and_the_next_is_served(server: str) -> None:
    for data in (b"", b"no image"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(server, data)
        assert refused.value.code == 400
        assert "cannot identify image" in json.load(refused.value)["error"]
    assert ask(server, png(PICTURES[0]))["batch"] == 1


def test_the_example_stays_short() -> None:
    assert len((ROOT / "scripts/serve_batched.py").read_text().splitlines()) < 60

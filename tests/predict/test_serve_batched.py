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

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from kmax import Predictor
from kmax.config.trained import TrainedModel
from kmax.data import ShapesDataset
from kmax.predict import export

PICTURES = [ShapesDataset(12, seed=4)[i].image for i in range(12)]


@pytest.fixture(scope="module")
def server(module: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server that waits a second for others, and takes at most four."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("served") / "model.onnx"
    export.export_model(module, path, "onnx", (129, 129), "dynamic", PICTURES[:2])
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
def test_concurrent_clients_share_passes_and_get_their_own_answers(server: str, module: TrainedModel) -> None:
    with ThreadPoolExecutor(len(PICTURES)) as clients:
        answers = list(clients.map(lambda picture: ask(server, png(picture)), PICTURES))
    assert max(answer["batch"] for answer in answers) == 4
    assert sum(1 / answer["batch"] for answer in answers) <= 6, "passes of the network for twelve images"
    predictor, found = Predictor(module, (129, 129)), 0
    for picture, answer in zip(PICTURES, answers, strict=True):
        expected = predictor(picture)
        names = [module.categories.names[s.label] for s in expected.segments]
        assert [row["class"] for row in answer["segments"]] == names
        segment_map = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["map"]))))
        assert segment_map.shape == picture.shape[:2]
        assert (segment_map != expected.segment_map.numpy()).sum() <= 4
        found += len(names)
    assert found > 12


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

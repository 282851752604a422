"""Serve an exported model over HTTP: `python scripts/serve_batched.py model.onnx [port] [batch] [seconds to wait]`.

`curl --data-binary @a.jpg localhost:8000` answers with segments and a PNG map. Images that meet share a pass."""

import base64
import io
import json
import queue
import sys
import threading
import time
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import onnxruntime
from PIL import Image

from kmax.predict.serving import Description, panoptic, prepare, to_rgb

path, port, batch, wait = (*sys.argv[1:], *("8000", "8", "0.01")[len(sys.argv) - 2 :])
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
model = Description.from_json(session.get_modelmeta().custom_metadata_map["kmax"])
waiting = queue.Queue[tuple[Any, Future[Any]]]()  # an image, and where its logits will be


def run_batches() -> None:
    while jobs := [waiting.get()]:
        time.sleep(float(wait))  # others may come
        while len(jobs) < int(batch) and not waiting.empty():
            jobs.append(waiting.get())
        try:
            images, content = prepare([image for image, _ in jobs], model.size)
            outputs = session.run(["class_logits", "mask_logits"], {"images": images, "content": content})
            [job[1].set_result((len(jobs), logits)) for job, *logits in zip(jobs, *outputs, strict=True)]
        except Exception as error:
            for _, future in jobs:
                future.set_exception(error)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:  # in a thread of its own
        try:
            image = to_rgb(Image.open(io.BytesIO(self.rfile.read(int(self.headers["Content-Length"])))))
            waiting.put((image, future := Future[Any]()))
            together, (classes, masks) = future.result()
            found, segments = panoptic(classes, masks, model.is_thing, model.size, image.shape[:2], **model.thresholds)
            Image.fromarray(found.astype("uint16")).save(png := io.BytesIO(), "PNG")
            rows = [{"id": s.id, "class": model.names[s.label], "score": s.score} for s in segments]
            content = {"segments": rows, "map": base64.b64encode(png.getvalue()).decode(), "batch": together}
        except Exception as error:  # decoders of foreign bytes raise whatever they like
            content = {"error": f"{type(error).__name__}: {error}"}
        self.send_response(400 if "error" in content else 200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())


threading.Thread(target=run_batches, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()

"""Serve an exported model with onnxruntime, NumPy and Pillow: `python scripts/serve_onnx.py model.onnx street.jpg`.

Prints one line of JSON per image. In a service without kmax, copy kmax/predict/serving.py next to this file.
"""

from __future__ import annotations

import json
import sys

import onnxruntime

from kmax.predict.serving import Description, open_image, panoptic, prepare

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
model = Description.from_json(session.get_modelmeta().custom_metadata_map["kmax"])
for file in sys.argv[2:]:
    image = open_image(file)
    images, content = prepare([image], model.size)
    classes, masks = session.run(["class_logits", "mask_logits"], {"images": images, "content": content})
    found = panoptic(classes[0], masks[0], model.is_thing, model.size, image.shape[:2], **model.thresholds)
    segments = [
        {"id": s.id, "label": model.names[s.label], "score": round(s.score, 3), "area": int((found[0] == s.id).sum())}
        for s in found[1]
    ]
    print(json.dumps({"file": file, "segments": segments}))

"""What the tests of a model in use share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kmax.config.trained import TrainedModel, load_trained
from kmax.inference.options import InferenceOptions


@pytest.fixture(scope="module")
def module(tiny_checkpoint: Path) -> TrainedModel:
    """The trained module, made decided: after two steps of training the k-means update still counts nothing, masks are
    flat, and every query is void."""
    result = load_trained(tiny_checkpoint)
    decoder: Any = result.model.transformer_decoder
    with torch.no_grad():
        for layer in decoder.layers:
            layer.update_out.norm.weight.fill_(1.0)
        decoder.predictor.mask_norm.weight.fill_(5.0)
        decoder.predictor.class_logits.bias[-1] -= 8.0
    inference = InferenceOptions(1, 1, 0.1, 0.1, 0.5, 0.4)
    return replace(result, options=replace(result.options, inference=inference))

"""Checkpoints that earlier versions wrote still load and say the same."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from kmax.predict.predictor import Predictor

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "old"


@pytest.fixture(scope="module")
def old_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `last.ckpt` of version 0.1.0, with the configuration in its form of that time."""
    path = tmp_path_factory.mktemp("old") / "last.ckpt"
    path.write_bytes(lzma.decompress((FOLDER / "last.ckpt.xz").read_bytes()))
    return path


def test_logits_of_an_old_checkpoint_are_unchanged(old_checkpoint: Path) -> None:
    recorded = np.load(FOLDER / "logits.npz")
    final = Predictor.from_checkpoint(old_checkpoint, "cpu").raw([recorded["image"]])[0].stages[-1]
    np.testing.assert_allclose(final.class_logits, recorded["class_logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(final.mask_logits, recorded["mask_logits"], rtol=1e-4, atol=1e-5)

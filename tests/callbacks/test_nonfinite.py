"""Steps that are not finite are skipped, whatever is accumulated; too many of them end the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from kmax.config.sentences import sentence_of
from small_run import one_thread, run


class Poison(Callback):
    """Make the loss of the batches whose numbers are given infinite, and running statistics with it."""

    def __init__(self, *batches: int) -> None:
        self.batches = batches

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.original, self.count = pl_module.criterion.forward, 0
        pl_module.criterion.forward = lambda output, targets: self.losses(pl_module, output, targets)

    def losses(self, pl_module: Any, output: Any, targets: Any) -> Any:
        losses = self.original(output, targets)
        if self.count in self.batches:
            poisoned = replace(losses.predictions, dice=losses.predictions.dice + torch.inf)
            losses = replace(losses, predictions=poisoned)
            pl_module.model.transformer_decoder.predictor.mask_norm.running_mean.data.fill_(torch.nan)
        self.count += 1
        return losses


class Weights(Callback):
    """The state of the model after every step."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        state = {k: v.clone() for k, v in pl_module.state_dict().items() if "num_batches" not in k}
        self.states.append(state)


@pytest.mark.long
def test_a_step_with_one_bad_batch_of_two_changes_nothing(tmp_path: Path) -> None:
    weights = Weights()
    options = ("optimizer.steps=3", "trainer.val_every_steps=3")
    with one_thread():
        run(tmp_path, *options, callbacks=[Poison(3), weights])
    after = weights.states[1::2]  # two batches a step
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[0])
    assert not all(torch.equal(after[1][name], after[2][name]) for name in after[0])
    assert all(value.isfinite().all() for value in after[2].values())
    assert "train/skipped_steps" in (tmp_path / "metrics.csv").read_text()
    assert len(list(tmp_path.glob("nonfinite-step0000001-rank0.json"))) == 1


@pytest.mark.long
def test_too_many_in_a_row_end_the_run(tmp_path: Path) -> None:
    options = ("optimizer.steps=8", "+callbacks.nonfinite.max_in_a_row=2")
    refused = pytest.raises(ValueError, match=r"loss was not finite in 2 steps in a row.*lower the learning rate")
    with one_thread(), refused as caught:
        run(tmp_path, *options, callbacks=[Poison(*range(2, 20))])
    assert "lower the learning rate (optimizer.lr), or set the precision (strategy.precision)" in sentence_of(
        caught.value
    )

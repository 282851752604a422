"""best.ckpt: the highest score; of equals the newest; at 0 the one with the lower training loss."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fsspec import filesystem

from kmax.callbacks import BestCheckpoint


class FakeTrainer(SimpleNamespace):
    """As much of a trainer as the callback looks at."""

    def __init__(self, folder: Path) -> None:
        strategy = SimpleNamespace(
            reduce=lambda value, reduce_op: value,
            reduce_boolean_decision=lambda value, all=True: value,
            broadcast=lambda value: value,
        )
        state = SimpleNamespace(fn="fit")
        super().__init__(
            strategy=strategy, state=state, sanity_checking=False, is_global_zero=True, max_steps=100, loggers=[],
            callback_metrics={}, global_step=0, fast_dev_run=False, current_epoch=0, folder=folder,
        )  # fmt: skip
        self.saved: list[int] = []

    def save_checkpoint(self, path: str, weights_only: bool) -> None:
        self.saved.append(self.global_step)


def validate(callback: BestCheckpoint, trainer: FakeTrainer, step: int, score: float, losses: list[float]) -> None:
    module: Any = SimpleNamespace(device=torch.device("cpu"), automatic_optimization=True)
    if callback._losses is None:
        callback.on_train_start(trainer, module)  # type: ignore[arg-type]
    for loss in losses:
        callback._losses += torch.tensor([loss, 1.0])  # type: ignore[operator]
    trainer.global_step = step
    trainer.callback_metrics = {"val/pq": torch.tensor(score)}
    callback._should_skip_saving_checkpoint = lambda trainer: False  # type: ignore[method-assign]
    callback._should_save_on_train_epoch_end = lambda trainer: False  # type: ignore[method-assign]
    callback._monitor_candidates = lambda trainer: {  # type: ignore[method-assign]
        **trainer.callback_metrics, "epoch": torch.tensor(0), "step": torch.tensor(step),
    }  # fmt: skip
    callback.on_validation_end(trainer, module)  # type: ignore[arg-type]


SCORES = {
    "higher": ([(10.0, [1.0]), (20.0, [2.0]), (15.0, [0.1])], 2),
    "tie, newest": ([(10.0, [1.0]), (10.0, [2.0])], 2),
    "zero, lower loss": ([(0.0, [5.0, 3.0]), (0.0, [2.0]), (0.0, [3.0])], 2),
    "zero, equal loss": ([(0.0, [2.0]), (0.0, [2.0])], 2),
    "zero, no loss": ([(0.0, []), (0.0, [])], 2),
    "out of zero": ([(0.0, [1.0]), (0.1, [9.0])], 2),
    "first": ([(5.0, [1.0]), (4.0, [0.5]), (0.0, [0.1])], 1),
}


@pytest.mark.parametrize(("validations", "expected"), SCORES.values(), ids=SCORES)
def test_which_weights_are_the_best(
    tmp_path: Path, validations: list[tuple[float, list[float]]], expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    callback, trainer = BestCheckpoint(tmp_path, "val/pq"), FakeTrainer(tmp_path)
    callback._fs = filesystem("file")
    for step, (score, losses) in enumerate(validations, 1):
        validate(callback, trainer, step, score, losses)
    assert trainer.saved[-1] == callback.best_step == expected
    assert callback.best_metrics == {"val/pq": pytest.approx(validations[expected - 1][0])}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(validations)
    assert lines[0].startswith(f"validated at step 1/100 · PQ {validations[0][0]:.2f} · best")
    assert all(("written" in line) == (step in trainer.saved) for step, line in enumerate(lines, 1))


def test_a_monitor_that_nobody_measures_is_named(tmp_path: Path) -> None:
    callback, trainer = BestCheckpoint(tmp_path, "val/miou"), FakeTrainer(tmp_path)
    with pytest.raises(ValueError, match=r"val/miou, is not measured; measured are val/pq"):
        validate(callback, trainer, 1, 1.0, [])


def test_the_best_of_another_folder_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").touch()
    first = BestCheckpoint(tmp_path, "val/pq")
    first.best_model_path, first.best_model_score, first.best_step = str(tmp_path / "best.ckpt"), torch.tensor(7.0), 3
    again, elsewhere = BestCheckpoint(tmp_path, "val/pq"), BestCheckpoint(tmp_path / "b", "val/pq")
    for callback in (again, elsewhere):
        callback.load_state_dict(first.state_dict())
    assert (again.best_step, float(again.best_model_score or 0)) == (3, 7.0)
    assert (elsewhere.best_step, elsewhere.best_model_score) == (None, None)
    (tmp_path / "best.ckpt").unlink()
    deleted = BestCheckpoint(tmp_path, "val/pq")
    deleted.load_state_dict(first.state_dict())
    assert deleted.best_model_score is None

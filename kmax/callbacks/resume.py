"""Checkpoints for resuming: at regular steps, before each validation, and when the run is asked to stop."""

from __future__ import annotations

import sys
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from kmax.callbacks.checkpoint_files import LAST, NEXT, rotate
from kmax.callbacks.loggers import close_loggers
from kmax.checkpoint.own import CheckpointDict
from kmax.console import command_to_go_on
from kmax.files import Json
from kmax.strategy.signals import STOP_SIGNALS, STOPPED, Stopped, requeue


class ResumeCheckpoint(Checkpoint):
    """Keep the last two states of a run in `folder`, as `last.ckpt` and `previous.ckpt`.

    A state is saved after a whole optimizer step, with nothing accumulated. It is written every `every_n_steps` steps,
    before each validation, at the end, and when a signal (`signals.NAMES`, or Ctrl-C) has reached any rank; in this
    last case the job is then requeued and the run ends (`signals.Stopped`). A run that resumes from such a state, with
    all callbacks of this package, computes exactly what it would have computed without the interruption.

    Args:
        folder: of the run's checkpoints.
        every_n_steps: optimizer steps between two checkpoints, which a run that is killed loses at most.
    """

    def __init__(self, folder: str | Path, every_n_steps: int) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} must be at least 1.")
        self.folder, self.every_n_steps = Path(folder), every_n_steps
        self.last_step = 0  # of the newest checkpoint of this run
        self._step = 0  # of the newest batch
        self._before_validation = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            STOP_SIGNALS.listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        STOP_SIGNALS.listen()  # again: by now Lightning has replaced these handlers by its own
        STOP_SIGNALS.listen_to_ctrl_c()
        if trainer.is_global_zero:
            for unfinished in self.folder.glob(f".*-{NEXT}"):  # files of a start that was killed while it wrote
                unfinished.unlink(missing_ok=True)
        self._step = self.last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._step:
            return  # only accumulated
        self._step = step
        validates, ends = validation_follows(trainer), step >= trainer.max_steps
        if ends and validates:
            return  # resuming a finished run would not run the validation that is still due
        stop = _asked_to_stop(trainer) and not ends
        if stop or ends or validates or step % self.every_n_steps == 0:
            self._save(trainer, before_validation=validates)
        if stop:
            self._leave(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        STOP_SIGNALS.leave_ctrl_c()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        STOP_SIGNALS.leave_ctrl_c()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # Ranks validate different numbers of batches, so they cannot exchange flags; the last state is on disk already.
        saved = self.last_step == trainer.global_step
        if trainer.is_global_zero and saved and _fitting(trainer) and STOP_SIGNALS.received is not None:
            self._leave(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _fitting(trainer) and trainer.global_step >= trainer.max_steps > self.last_step:
            self._save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: CheckpointDict) -> None:
        if self._before_validation:
            _mark_validation_as_due(checkpoint["loops"]["fit_loop"])

    def _save(self, trainer: Trainer, before_validation: bool = False) -> None:
        new = self.folder / NEXT
        self._before_validation = before_validation
        try:
            trainer.save_checkpoint(new, weights_only=False)
        finally:
            self._before_validation = False
        if trainer.is_global_zero:
            rotate(self.folder, new)
        trainer.strategy.barrier("ResumeCheckpoint")
        self.last_step = trainer.global_step

    def _leave(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            reason = STOP_SIGNALS.received or "a signal to another rank"
            written = self.folder / LAST
            print(f"Stopped by {reason} after step {self.last_step}; {written} is written.", flush=True)
            close_loggers(trainer.loggers, STOPPED)
            print(requeue(command_to_go_on(self.folder.parent, sys.argv)), flush=True)
        raise Stopped(trainer.global_rank)


def _asked_to_stop(trainer: Trainer) -> bool:
    """Whether any rank was asked to stop: known from the exchange of `NonFiniteGuard` in this step, or, without it,
    from an exchange of its own. All ranks must call this."""
    agreed, STOP_SIGNALS.agreed = STOP_SIGNALS.agreed, None
    if agreed is not None:
        return agreed
    return trainer.strategy.reduce_boolean_decision(STOP_SIGNALS.received is not None, all=False)


def validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning validates after the batch that has just been trained on."""
    interval = trainer.val_check_batch
    return bool(trainer.enable_validation and interval and (trainer.fit_loop.total_batch_idx + 1) % interval == 0)


def _fitting(trainer: Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _mark_validation_as_due(state: Json) -> None:
    """Change the `state` of Lightning's fit loop to: in validation, at its first batch.

    Lightning takes a validation that is due after the batch of the checkpoint for one that has been run, unless it was
    interrupted. Where it was, the step of the loggers is counted twice after the restart.
    """
    progress = state["epoch_loop.val_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts.update(ready=0, completed=0, started=0, processed=0)
    progress["total"].update(ready=1, started=1)
    progress["is_last_batch"] = False
    state["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1

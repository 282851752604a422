"""The progress of a run: a bar on a terminal, otherwise a plain line from time to time."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from kmax.callbacks.best import BestCheckpoint
from kmax.callbacks.pace import Pace
from kmax.console import Recorder, digits, drawn_over, duration, joined, percent
from kmax.structures import Batch


class Progress(ProgressBar):
    """Show step, images per second, time left, loss, and the last and the best score.

    On a terminal a bar stays at the bottom, and printed lines scroll above it; in a file or a pipe there are plain
    lines. Reading the loss means waiting for its step, so it is read only when something is shown.

    Args:
        refresh_rate: batches between two updates.
        seconds: between two plain lines, at least.
    """

    def __init__(self, refresh_rate: int = 10, seconds: float = 10.0) -> None:
        super().__init__()
        self.refresh_rate, self.seconds = refresh_rate, seconds
        self.pace = Pace()
        self._enabled = True
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._screen = ExitStack()
        self._said = float("-inf")  # when the last plain line was printed
        self._score: float | None = None  # of the last validation
        self._evaluation = Pace()

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.pace = Pace()
        self._open("step", trainer.max_steps, trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        if not self._enabled:
            return
        step, done = trainer.global_step, trainer.fit_loop.total_batch_idx + 1
        if done % trainer.accumulate_grad_batches == 0:
            self.pace.mark(step)
        if done % self.refresh_rate == 0 or step == trainer.max_steps:
            self._show("step", step, trainer.max_steps, self._training_numbers(trainer, len(batch.targets)))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.pace.pause()
        self._evaluation, self._said = Pace(), time.monotonic()
        if self._enabled and not trainer.sanity_checking:
            self._open(_validating(trainer), _validation_batches(trainer), 0)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        done, total = batch_idx + 1, _validation_batches(trainer)
        self._evaluation.mark(done)
        rate = self._evaluation.steps_per_second
        speed = f"{digits(rate * len(batch.samples) * trainer.world_size)} images/s" if rate else ""
        seconds = self._evaluation.seconds_left(total - done, 0)
        left = f"{duration(seconds)} left" if seconds is not None else ""
        self._show(_validating(trainer), done, total, (speed, left))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.pace.go_on()
        checkpoint = trainer.checkpoint_callback
        monitor = checkpoint.monitor if isinstance(checkpoint, BestCheckpoint) else "val/pq"
        if monitor in trainer.callback_metrics:
            self._score = float(trainer.callback_metrics[monitor])
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._open("step", trainer.max_steps, trainer.global_step)
        else:
            self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def _training_numbers(self, trainer: Trainer, images: int) -> tuple[str, ...]:
        """Speed, time left, loss and scores, as far as they are known.

        Args:
            images: in a batch of this rank.
        """
        step, total = trainer.global_step, trainer.max_steps
        every = max(1, int(trainer.val_check_batch or 1) // trainer.accumulate_grad_batches)
        rate, left = self.pace.steps_per_second, self.pace.seconds_left(total - step, total // every - step // every)
        per_step = images * trainer.accumulate_grad_batches * trainer.world_size
        loss = trainer.progress_bar_metrics.get("train/loss")
        checkpoint = trainer.checkpoint_callback
        best = checkpoint.best_model_score if isinstance(checkpoint, BestCheckpoint) else None
        name = str(checkpoint.monitor) if isinstance(checkpoint, BestCheckpoint) else ""
        title = "PQ" if name == "val/pq" else name
        return (
            f"{digits(rate * per_step)} images/s" if rate else "",
            f"{duration(left)} left" if left is not None else "",
            f"loss {digits(float(loss))}" if isinstance(loss, (int, float)) else "",
            f"{title} {percent(self._score)}" if self._score is not None else "",
            f"best {percent(float(best))}" if best is not None else "",
        )

    def _open(self, what: str, total: int, done: int) -> None:
        """Begin a bar if there is a terminal, instead of the bar before."""
        terminal = _terminal() if self._enabled else None
        if terminal is None:
            return
        if self._bars is None:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.completed}/{task.total}", markup=False),
                TextColumn("{task.fields[numbers]}", markup=False),
            )
            self._bars = Bars(*columns, console=terminal, transient=True, redirect_stdout=False, redirect_stderr=False)
            self._screen.enter_context(drawn_over(terminal, FileProxy))
            self._screen.enter_context(self._bars)
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(what, total=total, completed=done, numbers="")

    def _show(self, unit: str, done: int, total: int, numbers: tuple[str, ...]) -> None:
        if not self._enabled:
            return
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, numbers=joined(*numbers))
        elif time.monotonic() - self._said >= self.seconds:
            self._said = time.monotonic()
            print(joined(f"{unit} {done}/{total}", *numbers), flush=True)

    def _close(self) -> None:
        self._screen.close()
        self._bars = self._task = None


def _terminal() -> Console | None:
    """A console on the terminal that the program prints to, or None."""
    stream = sys.stdout.stream if isinstance(sys.stdout, Recorder) else sys.stdout
    if stream is None or not stream.isatty():
        return None
    inner = stream.rich_proxied_file if isinstance(stream, FileProxy) else stream
    console = Console(file=inner)
    return None if console.is_dumb_terminal else console


def _validating(trainer: Trainer) -> str:
    return "validating batch" if trainer.state.fn == "fit" else "evaluating batch"


def _validation_batches(trainer: Trainer) -> int:
    batches = trainer.num_val_batches
    return int(sum(batches)) if isinstance(batches, list) else int(batches)

"""Checkpoints are whole or absent, and the newest whole one is found."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from kmax.callbacks import AtomicCheckpointIO, checkpoint_to_resume
from kmax.callbacks.checkpoint_files import rotate
from kmax.config.sentences import sentence_of

RECIPE = {"backbone": {}, "dataset": {}, "model": {}, "loss": {}, "optimizer": {"lr": 0.1}, "seed": 1}


def config(folder: Path, resume: str = "auto", **recipe: Any) -> tuple[str, str, dict[str, Any]]:
    return resume, str(folder), {**RECIPE, **recipe}


def save(folder: Path, step: int) -> None:
    content = {"step": step, "state_dict": {"w": torch.full((1000,), float(step))}}
    content |= {"kmax_config": RECIPE, "kmax_categories": {}, "optimizer_states": []}
    AtomicCheckpointIO().save_checkpoint(content, folder / "next.ckpt")
    rotate(folder, folder / "next.ckpt")


def step_of(path: Path | None) -> int:
    assert path is not None
    return int(torch.load(path, weights_only=True)["step"])


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    assert checkpoint_to_resume(*config(tmp_path)) is None
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert {file.name for file in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}
    assert step_of(checkpoint_to_resume(*config(tmp_path))) == 3
    assert checkpoint_to_resume(*config(tmp_path, "never")) is None
    assert step_of(checkpoint_to_resume(*config(tmp_path, str(tmp_path / "previous.ckpt")))) == 2
    with pytest.raises(FileNotFoundError, match=r"no checkpoint /nowhere\.ckpt"):
        checkpoint_to_resume(*config(tmp_path, "/nowhere.ckpt"))


@pytest.mark.parametrize("damage", ["cut", "overwritten", "empty"])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    last = tmp_path / "last.ckpt"
    content = last.read_bytes()
    half = len(content) // 2
    last.write_bytes({"cut": content[:half], "overwritten": bytes(half) + content[:half], "empty": b""}[damage])
    with pytest.warns(UserWarning, match=r"last\.ckpt cannot be read.*the one before"):
        assert step_of(checkpoint_to_resume(*config(tmp_path))) == 1
    (tmp_path / "previous.ckpt").write_bytes(b"PK")
    with pytest.warns(UserWarning, match="cannot be read"), pytest.raises(ValueError, match="resume=never"):
        checkpoint_to_resume(*config(tmp_path))


def test_a_run_of_another_recipe_is_not_continued(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(ValueError, match=r"optimizer\.lr=0\.1, not 0\.2 .*folder of the run") as caught:
        checkpoint_to_resume(*config(tmp_path, optimizer={"lr": 0.2}))
    assert "change the folder of the run (hydra.run.dir)" in sentence_of(caught.value)


@pytest.mark.parametrize("when", ["while writing", "while syncing"])
def test_a_full_disk_leaves_the_old_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    save(tmp_path, 1)
    full = OSError(errno.ENOSPC, "No space left on device")

    def no_space(*arguments: Any, **options: Any) -> None:
        raise full

    if when == "while writing":
        monkeypatch.setattr(torch, "save", no_space)
    else:
        monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(ValueError, match=r"next\.ckpt cannot be written \(No space left on device; .* GB are free"):
        save(tmp_path, 2)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    monkeypatch.undo()
    assert step_of(checkpoint_to_resume(*config(tmp_path))) == 1


def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch reports it in its own way, from within its archive."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    save(tmp_path, 1)
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *options: original(Path("/dev/full"), *options))
    with pytest.raises(ValueError, match="Older checkpoints are untouched"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert step_of(checkpoint_to_resume(*config(tmp_path))) == 1

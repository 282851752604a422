"""Options that cannot be are refused when they are composed, by name and with what may be."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from kmax.config.build import build_trainer
from kmax.config.compose import compose_config, home_in_arguments, run_options
from kmax.config.explain import run_or_explain
from kmax.config.options import TrainOptions


def options(*overrides: str) -> TrainOptions:
    return run_options(compose_config("demo", "strategy=cpu", "~callbacks", "logger=none", *overrides))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainer.limit_val_batches=0", "trainer.limit_val_batches=0 must be greater than 0"),
        ("trainer.limit_val_batches=1.5", "trainer.limit_val_batches=1.5 must be an integer, or a fraction"),
        ("trainer.val_every_steps=0", "trainer.val_every_steps=0 must be at least 1"),
        ("trainer.val_metrics=[miou]", r"metric=val/pq is not measured: set trainer.val_metrics=\[miou,pq\]"),
        ("trainer.val_metrics=[mio]", r"trainer.val_metrics=\[mio\] must be some of pq, miou"),
        ("trainer.val_metrics=[]", r"trainer.val_metrics=\[\] must be one or more of pq, miou"),
        ("metric=val/miou", r"metric=val/miou is not measured: set trainer.val_metrics=\[pq,miou\]"),
        ("metric=pq", "metric=pq must be one of val/pq, "),
        ("strategy.precision=16", "strategy.precision=16 must be one of 32-true, 16-mixed"),
        ("strategy.precision=bf16", "strategy.precision=bf16 must be one of"),
        ("strategy.precision=16-true", "strategy.precision=16-true must be one of"),
        ("dataset.size=[65]", r"dataset.size=\[65\] must be 2 values"),
        ("dataset.size=[65,65,3]", r"dataset.size=\[65,65,3\] must be 2 values"),
        ("dataset.size=[0,65]", r"dataset.size=\[0,65\] must be at least 32"),
        ("dataset.batch_size=0", "dataset.batch_size=0 must be at least 1"),
        ("strategy.devices=0", "strategy.devices=0 must be at least 1, −1 or auto"),
        ("strategy.devices=1.5", "strategy.devices=1.5 must be at least 1"),
        ("strategy.devices=[]", r"strategy.devices=\[\] must be at least 1"),
        ("strategy.devices=[true]", r"strategy.devices=\[True\] must be at least 1"),
        ("seed=-1", "seed=-1 must be at least 0"),
        ("seed=4294967296", "seed=4294967296 must be at most 4294967295"),
        ("optimizer.lr=inf", "optimizer.lr=inf must be a finite number"),
        ("optimizer.lr=nan", "optimizer.lr=nan must be a finite number"),
        ("optimizer.ema_decay=1", "optimizer.ema_decay=1.0 must be less than 1"),
    ],
)
def test_a_value_out_of_its_range_is_refused_at_composition(override: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        options(override)


@pytest.mark.long
@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        (("dataset.batch_size=1",), ("dataset.batch_size=2", "strategy.batch_size_per_device=2")),
        (("dataset.batch_size=4", "strategy.batch_size_per_device=1"), ("strategy.batch_size_per_device=2",)),
        (("dataset.batch_size=2", "strategy.devices=2"), ("dataset.batch_size=4", "strategy.batch_size_per_device=2")),
    ],
)
def test_one_cell_is_too_little_for_batch_norm_and_the_remedy_helps(
    overrides: tuple[str, ...], remedy: tuple[str, ...]
) -> None:
    small = ("dataset.size=[32,32]", "loss.samples=8")
    with pytest.raises(ValueError, match=r"batch norm needs two values.*, or (.*)\.$") as caught:
        options(*small, *overrides)
    assert str(caught.value).endswith(f" or {' with '.join(remedy)}.")
    keys = {change.partition("=")[0] for change in remedy}
    assert options(*small, *(o for o in overrides if o.partition("=")[0] not in keys), *remedy).dataset.size == (32, 32)


def test_what_an_object_refuses_is_named_with_its_key() -> None:
    logger = "+logger.wandb={_target_: kmax.callbacks.wandb_logger, save_dir: nowhere, mode: onlien}"
    with pytest.raises(ValueError, match=r"^logger\.wandb\.mode=onlien is unknown: choose one of auto"):
        build_trainer(options(logger))


@pytest.mark.long
@pytest.mark.parametrize(("limit", "expected"), [("1", 1), ("2", 2), ("1.0", 1.0), ("0.5", 0.5), ("null", 1.0)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_validation_batch_means_one(limit: str, expected: float) -> None:
    found = build_trainer(options(f"trainer.limit_val_batches={limit}")).limit_val_batches
    assert (type(found), found) == (type(expected), expected)  # Lightning: 1 is a batch, 1.0 is all of them


def test_what_lightning_refuses_is_a_sentence_too(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: object) -> None:
        raise MisconfigurationException("0.01 of 6 batches is none.")

    with pytest.raises(SystemExit) as ended:
        run_or_explain(refuse, SimpleNamespace())
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: 0.01 of 6 batches is none.\n")


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
@pytest.mark.parametrize("written", ["~/runs/a", "'~/runs/a'", '"~/runs/a"'])
def test_a_folder_of_runs_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, key: str, written: str) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert home_in_arguments(["train.py", f"{key}={written}", "name=~x"]) == [
        "train.py",
        f"{key}=/home/somebody/runs/a",
        "name=~x",
    ]


def test_home_is_found_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    found = options("dataset.root='~/coco'", "init_from='~/best.ckpt'", "resume='~/last.ckpt'")
    assert (found.dataset.root, found.init_from) == ("/home/somebody/coco", "/home/somebody/best.ckpt")
    assert found.resume == "/home/somebody/last.ckpt"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.heads=3", r"model\.heads=3 must divide half of dim=128"),
        ("dataset.target_stride=3", r"dataset\.target_stride=3 must be 4, or 2 where"),
    ],
)
def test_what_only_the_network_would_notice_is_refused_when_composed(override: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run_options(compose_config("shapes", "~callbacks", "logger=none", override))

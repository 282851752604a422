"""Mistakes of the command line end in one sentence that names the thing and the remedy."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from kmax.config.compose import command_line
from kmax.config.folder import remove_if_unused
from kmax.config.grammar import grammar_mistake
from kmax.config.sentences import sentence_of, unset_variable

AWKWARD = [
    "photos (1).jpg", "a=b.ckpt", "[x].png", "Bär.jpg", "x{1}.png", "it's.jpg", 'say "hi".jpg', "写真", "a b=c", "(",
    "]", "a\\b (1)", "run: 1 [2]",
]  # fmt: skip


@pytest.mark.parametrize("value", AWKWARD)
def test_how_to_write_what_hydra_cannot_read(value: str) -> None:
    parser = OverridesParser.create()
    sentence = grammar_mistake(["ckpt=best.ckpt", f"input={value}"])
    if sentence is None:  # it can be read after all
        assert str(parser.parse_override(f"input={value}").value()) == value
        return
    assert sentence.startswith(f"input={value} cannot be read")
    (written,) = shlex.split(sentence.rpartition("Write ")[2])
    assert grammar_mistake([written]) is None
    assert parser.parse_override(written).value() == value


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_value_is_read_or_explained(value: str) -> None:
    sentence = grammar_mistake([f"input={value}"])
    assert sentence is None or "Write" in sentence


@pytest.mark.parametrize("argument", ["photos", "größe=3", "a b=3", "photos (1).jpg"])
def test_what_is_no_option_is_said(argument: str) -> None:
    assert "is no option" in str(grammar_mistake([argument]))


@pytest.mark.parametrize(
    "arguments",
    [
        ["dataset.size=[65,65]", "-m", "seed=1,2", "~callbacks.panels", "+a.b={c: 1}"],
        ["--config-dir", "somewhere", "experiment=shapes"],
        ["--cfg", "job", "sweep=attention", "hydra/launcher=joblib_local"],
        ["optimizer.lr=tag(log, interval(1e-4, 5e-3))", "input='a (1).jpg'", "x=", "x=null"],
    ],
)
def test_what_hydra_can_read_is_left_alone(arguments: list[str]) -> None:
    assert grammar_mistake(arguments) is None


def test_the_program_ends_with_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line(["train.py", "name=a (1)"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: name=a (1) cannot be read")


def test_an_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    monkeypatch.setenv("THERE", "x")
    argument = "dataset.root=${oc.env:NO_SUCH_VARIABLE}"
    sentence = str(unset_variable(["a=${oc.env:THERE}", "b=${oc.env:NO_SUCH_VARIABLE,default}", argument]))
    assert sentence.startswith("dataset.root: the environment variable NO_SUCH_VARIABLE is not set: export")
    with pytest.raises(ValueError, match="NO_SUCH_VARIABLE") as caught:
        OmegaConf.to_container(OmegaConf.create({"dataset": {"root": "${oc.env:NO_SUCH_VARIABLE}"}}), resolve=True)
    assert sentence_of(caught.value) == sentence


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("one sentence."), "one sentence."),
        (ValueError("Traceback …\n  File …\nValueError: its end."), "its end."),
        (FileNotFoundError(), "FileNotFoundError"),
        (ValueError("a name \x1b[2J"), "a name \\x1b[2J"),
        (ValueError("Lower the learning rate."), "Lower the learning rate (optimizer.lr)."),
        (ValueError("strategy.precision=x: set the precision to y."), "strategy.precision=x: set the precision to y."),
        (ValueError("The metric of pruning, val/x, …"), "The metric of pruning (callbacks.pruning.monitor), val/x, …"),
    ],
)
def test_what_errors_say(error: Exception, sentence: str) -> None:
    assert sentence_of(error) == sentence


def test_only_a_folder_without_results_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = (".hydra", "train.log")
    for name in ("failed", "used"):
        folder = tmp_path / "runs" / name / "2026"
        (folder / ".hydra").mkdir(parents=True)
        (folder / "train.log").write_text("run folder")
    (tmp_path / "runs/used/2026/metrics.csv").touch()
    remove_if_unused(tmp_path / "runs/failed/2026", own)
    remove_if_unused(tmp_path / "runs/used/2026", own)
    remove_if_unused(tmp_path / "runs/nowhere", own)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["used"]
    (tmp_path / "runs/used/2026/metrics.csv").unlink()
    remove_if_unused(tmp_path / "runs/used/2026", own)
    assert list(tmp_path.iterdir()) == []

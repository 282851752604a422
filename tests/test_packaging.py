"""The wheel does all that a checkout does, and nobody is told to install somebody else's `kmax`."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

from conftest import ROOT, SMALL_RUN, once
from kmax import __version__, commands

COMMANDS = ("train", "evaluate", "predict", "demo", "export", "convert", "prepare")
TEXTS = (
    "*.md",
    "*.cff",
    "Makefile",
    "docs/**/*.md",
    "kmax/**/*.py",
    "scripts/**/*.py",
    "notebooks/*.ipynb",
    "conf/**/*.yaml",
)
SOMEBODY_ELSES = re.compile(r"pip install[^\n]*[\s'\"]kmax(?!-deeplab|[\w/])|\bkmax\[\w+\]")


def run(*command: str, cwd: Path, **env: str) -> str:
    """Output of a command that must succeed."""
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages in which nothing but the wheel is installed."""
    pytest.importorskip("hatchling")

    def make(folder: Path) -> None:
        options = ("--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder))
        run(sys.executable, "-m", "pip", "wheel", ".", *options, cwd=ROOT)
        (wheel,) = folder.glob("kmax_deeplab-*.whl")
        zipfile.ZipFile(wheel).extractall(folder / "site")

    return once(tmp_path_factory, "wheel", make) / "site"


@pytest.mark.long
def test_the_wheel_holds_one_package_and_every_command(site: Path) -> None:
    (about,) = site.glob("kmax_deeplab-*.dist-info")
    assert {path.name for path in site.iterdir()} == {"kmax", about.name}
    assert about.name == f"kmax_deeplab-{__version__}.dist-info"
    assert (site / "kmax/py.typed").is_file()
    assert not list(site.rglob("*.pyc"))
    entries = configparser.ConfigParser()
    entries.read(about / "entry_points.txt")
    assert dict(entries["console_scripts"]) == {f"kmax-{name}": f"kmax.commands:{name}" for name in COMMANDS}


@pytest.mark.long
def test_the_wheel_trains_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    code = "import sys; sys.argv[0] = 'kmax-train'; from kmax.commands import train; train()"
    output = run(sys.executable, "-c", code, *SMALL_RUN, "hydra.run.dir=run", cwd=tmp_path, PYTHONPATH=str(site))
    assert "best.ckpt" in output
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()
    code = "import kmax; print(kmax.__file__, len(kmax.build_model('coco_resnet50').state_dict()))"
    place, count = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(site)).split()[-2:]
    assert Path(place) == site / "kmax/__init__.py"
    assert int(count) > 500


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_runs_its_program(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(commands.runpy, "run_path", lambda path, run_name: started.append(path))
    monkeypatch.setattr(sys, "argv", [f"kmax-{name}", "ade20k"])
    getattr(import_module("kmax.commands"), name)()
    (program,) = started
    assert Path(program).is_relative_to(ROOT)
    assert '__name__ == "__main__"' in Path(program).read_text()


def test_an_unknown_dataset_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kmax-prepare", "mars"])
    with pytest.raises(SystemExit, match="no preparation of 'mars': choose one of coco, cityscapes, ade20k, own"):
        commands.prepare()


@pytest.mark.long
def test_help_of_a_preparation_imports_little() -> None:
    code = "import sys, kmax.data.prepare; print(*{'torch', 'hydra', 'lightning', 'scipy'} & set(sys.modules))"
    assert run(sys.executable, "-c", code, cwd=ROOT, PYTHONPATH=str(ROOT)).strip() == ""


def test_nobody_is_told_to_install_somebody_elses_package() -> None:
    files = [file for pattern in TEXTS for file in ROOT.glob(pattern)]
    assert len(files) > 100
    told = {
        f"{file.relative_to(ROOT)}: {found[0]}" for file in files for found in SOMEBODY_ELSES.finditer(file.read_text())
    }
    assert not told


@pytest.mark.parametrize(
    "text", ["pip install kmax", "`pip install 'kmax[tf]'`", "the extra kmax[demo]", "pip install -U kmax."]
)
def test_such_a_string_is_found(text: str) -> None:
    assert SOMEBODY_ELSES.search(text)


@pytest.mark.parametrize(
    "text", ["pip install -e '.[tf]'", "pip install 'kmax-deeplab[tf]'", "import kmax", "git clone kmax"]
)
def test_others_are_not(text: str) -> None:
    assert not SOMEBODY_ELSES.search(text)

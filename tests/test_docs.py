"""The documentation builds without a warning, and its tables hold every option."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from conftest import ROOT
from kmax.config.schema import ROOTS
from kmax.options import describe


def run(*command: str, cwd: Path = ROOT, **env: str) -> str:
    """Output of a command that must succeed."""
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout + result.stderr


class Page(HTMLParser):
    """The links, images and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value or "")
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def broken_links(site: Path) -> Iterator[str]:
    """Links of a built site that lead nowhere: to a file or an anchor that is missing, or no address at all. Other
    sites are not asked."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            where = f"{path.relative_to(site)}: {link}"
            try:
                parts = urlsplit(link)
            except ValueError:
                yield where
                continue
            if parts.scheme or parts.netloc:
                known = parts.scheme in ("https", "http", "data", "mailto") and not re.search(r"[\s<>]", link)
                if not known or (parts.scheme.startswith("http") and "." not in parts.netloc):
                    yield where
                continue
            base = site if parts.path.startswith("/") else path.parent
            target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                yield where


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    output = run(sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder), PYTHONPATH=str(ROOT))
    assert "WARNING" not in output
    return folder


@pytest.mark.long
def test_the_documentation_builds_without_warnings(site: Path) -> None:
    api = (site / "api/index.html").read_text()
    assert "Panoptic segmentation of one image" in api  # a docstring, rendered
    assert "images/kmeans_view.png" in (site / "concepts/index.html").read_text()
    assert not (site / "hooks.py").exists()


@pytest.mark.long
def test_every_option_has_its_row(site: Path) -> None:
    page = (site / "configuration/index.html").read_text()
    rows = dict(re.findall(r"<tr>\s*<td><code>([\w.]+)</code></td>(.*?)</tr>", page, re.DOTALL))
    for program, kind in ROOTS.items():
        for found in describe(kind):
            assert found.name in rows, f"{program}: {found.name}"
            cells = re.findall(r"<td>(.*?)</td>", rows[found.name], re.DOTALL)
            assert len(cells) == 3
            assert all(cells), f"{program}: {found.name} lacks a default, values or a meaning"
    assert "coco_convnext_large" in page  # the choices of the groups
    assert "<!--" not in page.split("<body", 1)[1].split("<footer", 1)[0]  # every table was filled in


@pytest.mark.long
def test_links_lead_somewhere(site: Path) -> None:
    assert list(broken_links(site)) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text('<h1 id="here">x</h1>')
    good = (
        '<a href="other/#here"></a><a href="#top" id="top"></a><img src="other/index.html"><a href="https://a.org/b">'
    )
    bad = ("none.html", "other/#gone", "#nowhere", "other/none.png", "htps://a.org", "https://", "https://a.org/a b")
    links = "".join(f'<a href="{link}"></a>' for link in bad)
    (tmp_path / "index.html").write_text(good + links)
    assert list(broken_links(tmp_path)) == [f"index.html: {link}" for link in bad]


PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "data").glob("*.md")})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(page: Path) -> None:
    """As the repository shows it: links and pictures relative to the page."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        parts = urlsplit(link)
        if not parts.scheme and parts.path:
            assert (page.parent / unquote(parts.path)).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_are_described(page: Path) -> None:
    assert not re.search(r"!\[\s*\]", page.read_text(encoding="utf-8")), "an image without a text"

"""Downloads of large files from Google Drive, which first answers with a page that asks for confirmation."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

_FILE = re.compile(r"/file/d/([\w-]+)")
_FORM = "download-form"
_BUSY = ("quota exceeded", "too many users have viewed or downloaded")


def download_address(url: str) -> str:
    """The address that a file's page downloads from; any other address as it is."""
    found = _FILE.search(urlsplit(url).path)
    return urljoin(url, f"/uc?{urlencode({'export': 'download', 'id': found.group(1)})}") if found else url


def confirmed_address(page: str, url: str) -> str | None:
    """The address behind the button of a confirmation page at `url`; None if the page has no such button."""
    parser = _Form()
    parser.feed(page)
    if parser.action is None:
        return None
    separator = "&" if urlsplit(parser.action).query else "?"
    return urljoin(url, f"{parser.action}{separator}{urlencode(parser.values)}")


def is_busy(page: str) -> bool:
    """Whether the page says that the file was downloaded too often recently."""
    return any(words in page.lower() for words in _BUSY)


class _Form(HTMLParser):
    """The target of a confirmation page's form, and its hidden values."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.values: dict[str, str] = {}
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form" and found.get("id") == _FORM:
            self.action, self._inside = found.get("action", ""), True
        elif tag == "input" and self._inside and found.get("type") == "hidden":
            self.values[found.get("name", "")] = found.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._inside &= tag != "form"

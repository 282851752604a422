"""A server on 127.0.0.1 that hands out files well, badly, slowly or wrongly, or behind Google Drive's page."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

CONFIRM = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<p>Google Drive can't scan this file for viruses. <a href="/open?id=1">weights.pth</a> (1.0G) is too large.</p>
<form id="download-form" action="/download" method="get"><input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="ID"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="a&amp;b"></form></body></html>"""
BUSY = "<html><head><title>Google Drive - Quota exceeded</title></head><body>Too many users have viewed …</body></html>"


@dataclass
class File:
    """How one address behaves: `content` is what it should hand out.

    `cut` ends each answer after so many bytes, `limit` the answers that are cut; `ranges` whether parts are handed out;
    `status` an error instead; `pause` seconds before each answer; `page` a web page instead; `headers` further ones;
    `length` whether Content-Length is said.
    """

    content: bytes = b""
    cut: int | None = None
    limit: int = 1 << 30
    ranges: bool = True
    status: int | None = None
    pause: float = 0.0
    page: str | None = None
    redirect: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    length: bool = True
    asked: list[str] = field(default_factory=list)


class Web(ThreadingHTTPServer):
    """The server; `files` by path, which tests change as they go."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, File] = {}

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no error here."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def log_message(self, *_: object) -> None:
        """Be quiet."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        path = address.path
        if path == "/uc":  # Google Drive: the file by its number, behind a page
            path = f"/drive/{query['id'][0]}"
        elif path == "/download":
            assert query["uuid"] == ["a&b"]
            path = f"/confirmed/{query['id'][0]}"
        file = self.server.files.get(path, File(status=404))
        file.asked.append(self.headers.get("Range", ""))
        time.sleep(file.pause)
        if file.status:
            self.answer(file.status, {"Content-Length": "0"}, b"")
        elif file.redirect:
            self.answer(302, {"Location": file.redirect, "Content-Length": "0", **file.headers}, b"")
        elif file.page is not None:
            body = file.page.encode()
            self.answer(200, {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body))}, body)
        else:
            self.hand_out(file)

    def hand_out(self, file: File) -> None:
        tag = f'"{hashlib.md5(file.content).hexdigest()}"'
        start, status = 0, 200
        found = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if found and file.ranges and self.headers.get("If-Range", tag) == tag:
            start, status = int(found.group(1)), 206
        if start and start >= len(file.content):
            self.answer(416, {"Content-Length": "0"}, b"")
            return
        body = file.content[start:]
        headers = {"Content-Type": "application/octet-stream", "ETag": tag, **file.headers}
        if file.length:
            headers["Content-Length"] = str(len(body))
        else:
            headers["Connection"] = "close"
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(file.content) - 1}/{len(file.content)}"
        cut = file.cut if len(file.asked) <= file.limit else None
        self.answer(status, headers, body[:cut])
        if cut is not None or not file.length:
            self.close_connection = True

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Web]:
    """A running server."""
    web = Web()
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield web
    web.shutdown()
    web.server_close()

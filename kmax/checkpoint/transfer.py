"""One file over HTTP: resumed where it broke off, tried again while that helps, checked against what its host says."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies, select_proxy

from kmax.checkpoint.drive import confirmed_address, download_address, is_busy
from kmax.checkpoint.resume import CHUNK, PartState, digest, forget, side, stated_digests

PAGE = 1 << 20
"""How many bytes of a web page are read."""
Progress = Callable[[int, "int | None"], None]
"""Called with the number of bytes received and, if the host tells it, the total number."""


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: for a connection, for the next bytes, after the first failure (doubled after each
    further one); and how many failures in a row without any new byte end the attempt."""

    connect: float = 1.5
    read: float = 30.0
    pause: float = 0.5
    attempts: int = 5


class TransferError(Exception):
    """A file that cannot be downloaded; the message says why."""


class BrokenOffError(Exception):
    """A transfer that another attempt may complete."""


def unreachable(urls: Iterable[str], seconds: float) -> dict[str, str]:
    """Those of some addresses whose host accepts no connection in time, with the reason.

    All are tried at once. Looking up a name can block for longer than any socket's timeout, hence the threads.
    """
    pending = dict.fromkeys(urls, "no answer")

    def connect(url: str) -> None:
        try:
            with contextlib.closing(socket.create_connection(_endpoint(url), timeout=seconds)):
                pending.pop(url)
        except OSError as error:
            pending[url] = error.strerror or str(error)

    threads = [threading.Thread(target=connect, args=(url,), daemon=True) for url in pending]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(pending)


def _endpoint(url: str) -> tuple[str, int]:
    """Host and port that a request to `url` connects to: its own, or those of a proxy."""
    address = urlsplit(select_proxy(url, get_environ_proxies(url)) or url)
    return address.hostname or "", address.port or {"https": 443}.get(address.scheme, 80)


def transfer(url: str, part: Path, progress: Progress, patience: Patience | None = None) -> None:
    """Download a file into `part`; an interrupted attempt keeps what it has, and the next one continues from there.

    Raises:
        TransferError: the host refuses, sends something else, or breaks off repeatedly.
    """
    patience = patience or Patience()
    failures, best = 0, _size(part)
    with requests.Session() as session:
        session.headers.update({"User-Agent": "kmax-deeplab", "Accept-Encoding": "identity"})
        while True:
            try:
                return _attempt(session, url, part, progress, patience)
            except (BrokenOffError, requests.RequestException) as error:
                failures = 0 if _size(part) > best else failures + 1
                best = max(best, _size(part))
                if failures >= patience.attempts:
                    raise TransferError(_reason(error)) from error
                time.sleep(patience.pause * 2**failures)


def _attempt(session: requests.Session, url: str, part: Path, progress: Progress, patience: Patience) -> None:
    known, have = PartState.read(part), _size(part)
    headers = known.headers(have) if known and have else {}
    timeout = (patience.connect * 4, patience.read)
    with _open(session, url, headers, timeout) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            if known and known.total == have:
                return _accept(response, part)
            forget(part)
            raise BrokenOffError("the host has less of the file than was there already")
        resumed = response.status_code == requests.codes.partial_content
        if resumed and not (known and known.continues(response, have)):
            forget(part)
            raise BrokenOffError("the host continues elsewhere in the file")
        state = PartState.of(response, have if resumed else 0)
        state.write(part)
        _check_space(part, state.total, have if resumed else 0)
        _receive(response, part, resumed, state.total, progress)
        _accept(response, part)


def _accept(response: requests.Response, part: Path) -> None:
    """Accept a received file, unless its host states another hash."""
    for kind, value in stated_digests(response).items():
        if digest(part, kind) != value:
            forget(part)
            raise TransferError(f"what arrived has another {kind.upper()} than its host states")
    side(part).unlink(missing_ok=True)


def _open(
    session: requests.Session, url: str, headers: dict[str, str], timeout: tuple[float, float]
) -> requests.Response:
    """The response that carries the file, through Google Drive's confirmation page if there is one."""
    address = download_address(url)
    for _ in range(3):
        response = session.get(address, headers=headers, timeout=timeout, stream=True)
        _check_status(response)
        if not response.headers.get("Content-Type", "").startswith("text/html"):
            return response
        with response:
            page = next(response.iter_content(PAGE), b"").decode("utf-8", "replace")
        if is_busy(page):
            raise TransferError("the file was downloaded too often lately, its host says: try again tomorrow")
        confirmed = confirmed_address(page, response.url)
        if confirmed is None:
            break
        address = confirmed
    raise TransferError(f"{urlsplit(response.url).hostname} answers with a web page, not with the file")


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status >= 500 or status in (requests.codes.too_many_requests, requests.codes.request_timeout):
        raise BrokenOffError(f"the host answers {status} {response.reason}")
    if status >= 400 and status != requests.codes.requested_range_not_satisfiable:
        raise TransferError(f"the host answers {status} {response.reason}")


def _receive(response: requests.Response, part: Path, resumed: bool, total: int | None, progress: Progress) -> None:
    have = _size(part) if resumed else 0
    with part.open("ab" if resumed else "wb") as file:
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            have += len(chunk)
            progress(have, total)
    if total is not None and have != total:
        if have > total:
            forget(part)
        raise BrokenOffError(f"the host broke off after {have} of {total} bytes")
    if not have:
        raise TransferError("the host hands out an empty file")


def _check_space(part: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise TransferError(f"{total - have} bytes are wanted and {free} are free in {part.parent}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    """The reason in a few words: exceptions of requests name objects in memory."""
    if isinstance(error, requests.Timeout):
        return "the host does not answer"
    if isinstance(error, (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        return "the connection breaks off"
    return str(error)

"""Published files by name: good, broken, slow, truncated, wrong and redirecting servers, and none at all."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from web import BUSY, CONFIRM, File, Web, serving

from conftest import ROOT
from kmax.checkpoint import cache
from kmax.checkpoint.cache import Record, cache_dir, fingerprint
from kmax.checkpoint.download import local_weights
from kmax.checkpoint.foreign import read_entries
from kmax.checkpoint.published import Published, find_published, published
from kmax.checkpoint.transfer import Patience, TransferError, transfer, unreachable

QUICK = Patience(connect=1.5, read=1.0, pause=0.01, attempts=3)
CONTENT = b"PK" + np.random.default_rng(0).bytes(700_000)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KMAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def entry(*urls: str, form: str = "detectron2") -> Published:
    return Published("a_model", "A", urls, "t", "c", "f", "coco", form, "s", "l", experiment="coco_resnet50")


def copy(source: Path, target: Path) -> None:
    """A conversion that changes nothing."""
    target.write_bytes(source.read_bytes() if source.is_file() else source.joinpath("ckpt-5.index").read_bytes())


def get(*urls: str) -> bytes:
    return local_weights(entry(*urls), copy, QUICK).read_bytes()


def archive(names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_a_file_is_got_once_and_found_again(web: Web, folder: Path) -> None:
    web.files["/a.pth"] = File(CONTENT)
    assert get(f"{web.url}/a.pth") == CONTENT
    assert {f.name for f in folder.iterdir()} - {"a_model.lock"} == {"a_model.safetensors", "a_model.json"}
    record = Record.read(folder / "a_model.json")
    assert record is not None
    assert record.published.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert record.url == f"{web.url}/a.pth"
    web.files.clear()
    assert get("http://127.0.0.1:9/a.pth") == CONTENT, "no network is needed any more"


@pytest.mark.parametrize(
    ("file", "asked"),
    [
        (File(CONTENT, cut=300_000), 3),
        (File(CONTENT, cut=300_000, limit=1, ranges=False), 2),
        (File(CONTENT, cut=300_000, limit=2, length=True), 3),
    ],
    ids=["resumed", "host without ranges", "resumed twice"],
)
def test_what_breaks_off_goes_on(web: Web, folder: Path, file: File, asked: int) -> None:
    web.files["/a.pth"] = file
    assert get(f"{web.url}/a.pth") == CONTENT
    assert len(file.asked) == asked
    assert file.asked[1].startswith("bytes=")


def test_a_later_command_goes_on_where_the_first_one_ended(web: Web, folder: Path) -> None:
    file = web.files["/a.pth"] = File(CONTENT, cut=0)
    part = folder / "a_model.pth.part"
    file.cut, file.limit = 400_000, 1

    def stop(have: int, total: int | None) -> None:
        if have > 300_000:
            raise KeyboardInterrupt

    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        transfer(f"{web.url}/a.pth", part, stop, QUICK)
    have = part.stat().st_size
    assert 0 < have < len(CONTENT)
    assert get(f"{web.url}/a.pth") == CONTENT
    assert file.asked[-1] == f"bytes={have}-"


def test_another_file_in_the_meantime_is_got_from_the_start(web: Web, folder: Path) -> None:
    file = web.files["/a.pth"] = File(CONTENT[::-1], cut=400_000, limit=1)
    seen: list[int] = []

    def swap(have: int, total: int | None) -> None:
        seen.append(have)
        file.content = CONTENT

    folder.mkdir()
    part = folder / "a.part"
    transfer(f"{web.url}/a.pth", part, swap, QUICK)
    assert part.read_bytes() == CONTENT


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (File(status=404), "the host answers 404 Not Found"),
        (File(status=503), "the host answers 503 Service Unavailable"),
        (File(CONTENT, cut=0), "the connection breaks off"),
        (File(CONTENT, pause=1.5), "the host does not answer"),
        (File(page="<html>Sign in</html>"), "127.0.0.1 answers with a web page, not with the file"),
        (File(page=BUSY), "the file was downloaded too often lately"),
        (File(b"", length=False), "the host hands out an empty file"),
        (File(b"no weights at all"), "what arrived is no file of weights"),
        (
            File(CONTENT, headers={"x-goog-hash": "crc32c=AAAA, md5=" + base64.b64encode(b"0" * 16).decode()}),
            "another MD5",
        ),
        (File(CONTENT, headers={"X-Linked-Etag": f'"{"0" * 64}"'}), "another SHA256"),
        (File(redirect="/b.pth"), "the host answers 404"),
        (File(redirect="/a.pth"), "redirects"),
    ],
    ids=[
        "missing",
        "out of order",
        "truncated",
        "silent",
        "page",
        "busy",
        "empty",
        "wrong",
        "md5",
        "sha256",
        "gone",
        "ring",
    ],
)
def test_what_cannot_be_had_is_one_sentence(web: Web, folder: Path, file: File, reason: str) -> None:
    web.files["/a.pth"] = file
    with pytest.raises(ValueError, match=reason) as caught:
        get(f"{web.url}/a.pth")
    sentence = str(caught.value)
    assert f"get {web.url}/a.pth elsewhere and put it at {folder / 'a_model.pth'}" in sentence
    assert "\n" not in sentence
    assert not (folder / "a_model.safetensors").exists()
    assert not (folder / "a_model.pth").exists()


def test_the_second_address_serves_where_the_first_does_not(web: Web, folder: Path) -> None:
    web.files["/b.pth"] = File(CONTENT)
    assert get(f"{web.url}/a.pth", f"{web.url}/b.pth") == CONTENT
    record = Record.read(folder / "a_model.json")
    assert record is not None
    assert record.url.endswith("/b.pth")


@pytest.mark.parametrize("large", [False, True])
def test_google_drive(web: Web, folder: Path, large: bool) -> None:
    """A large file comes behind a page with a button."""
    good = File(CONTENT, cut=300_000)
    if large:
        web.files["/drive/ID"] = File(page=CONFIRM)
        web.files["/confirmed/ID"] = good
    else:
        web.files["/drive/ID"] = good
    assert get(f"{web.url}/file/d/ID/view") == CONTENT
    assert len(good.asked) == 3


def test_a_mirror_of_hugging_face(web: Web, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", web.url)  # read from $HF_ENDPOINT on import
    web.files["/user/name/resolve/main/a.pth"] = File(CONTENT)
    assert get("https://huggingface.co/user/name/resolve/main/a.pth") == CONTENT


def test_hashes_that_the_host_states_are_those_of_the_file(web: Web, folder: Path) -> None:
    """Hugging Face states it with the redirection, Google with the file."""
    md5 = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
    etag = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    web.files["/a.pth"] = File(redirect="/b.pth", headers={"X-Linked-Etag": etag})
    web.files["/b.pth"] = File(CONTENT, headers={"x-goog-hash": f"crc32c=AAAAAA==,md5={md5}"})
    assert get(f"{web.url}/a.pth") == CONTENT


def test_without_a_network_one_sentence_within_two_seconds(folder: Path) -> None:
    """Refused (nobody listens there), unknown (no such name), and silent (an address that swallows everything)."""
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"a_model cannot be downloaded \(.+\): get http://127\.0\.0\.1:9/a\.pth"):
        local_weights(entry("http://127.0.0.1:9/a.pth", "http://nowhere.invalid/b.pth", "http://10.255.255.1/c"), copy)
    assert time.monotonic() - start < 2
    assert not list(folder.glob("*.part"))


def test_a_lookup_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        released.wait(20)
        raise OSError("too late")

    monkeypatch.setattr("socket.create_connection", hang)
    start = time.monotonic()
    assert unreachable(["http://a/b", "http://c/d"], 0.1) == {"http://a/b": "no answer", "http://c/d": "no answer"}
    assert time.monotonic() - start < 1
    released.set()


def test_a_proxy_is_asked_in_place_of_the_host(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", web.url)
    monkeypatch.setenv("no_proxy", "")
    assert unreachable(["http://nowhere.invalid/a"], 1.0) == {}


def test_a_file_put_there_by_hand_is_taken(folder: Path) -> None:
    folder.mkdir()
    for name in ("a_model.pth", "kmax_r50.pth"):
        (folder / name).write_bytes(CONTENT)
        assert get("http://127.0.0.1:9/x/kmax_r50.pth") == CONTENT
        assert not (folder / name).exists(), "only the converted file stays"
        (folder / "a_model.safetensors").unlink()


def test_what_is_no_longer_what_it_was_is_refused(web: Web, folder: Path) -> None:
    web.files["/a.pth"] = File(CONTENT)
    get(f"{web.url}/a.pth")
    target = folder / "a_model.safetensors"
    target.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(ValueError, match=r"a_model\.safetensors is not what was written there: remove it"):
        get(f"{web.url}/a.pth")
    target.unlink()
    web.files["/a.pth"] = File(CONTENT + b"!")
    with pytest.raises(
        ValueError, match=r"is not the file that was first downloaded as a_model \(SHA-256 \w{12}…, then"
    ):
        get(f"{web.url}/a.pth")
    (folder / "a_model.json").unlink()
    assert get(f"{web.url}/a.pth") == CONTENT + b"!"


def test_an_archive_gives_its_checkpoint_and_nothing_else(web: Web, folder: Path, tmp_path: Path) -> None:
    written = ROOT / "tests/golden/tf/checkpoint"
    files = {f"some/where/{f.name}": f.read_bytes() for f in written.iterdir()}
    more = {"checkpoint": b"text", "../../outside.index": b"x", "/absolute.index": b"x", "._ckpt-5.index": b"x"}
    web.files["/a.tar.gz"] = File(archive({**more, **files}))
    seen: list[set[str]] = []

    def look(source: Path, target: Path) -> None:
        seen.append({f.name for f in source.iterdir()})
        (source / "outside.index").unlink()
        (source / "absolute.index").unlink()
        target.write_bytes(read_entries(source)["half"].numpy().tobytes())

    path = local_weights(entry(f"{web.url}/a.tar.gz", form="deeplab2"), look, QUICK)
    assert path.read_bytes() == np.array([0.5, -2], np.float16).tobytes()
    assert seen == [{f.name for f in written.iterdir()} | {"outside.index", "absolute.index"}]
    assert not (tmp_path / "outside.index").exists()


def test_a_broken_archive_is_removed_and_one_without_a_checkpoint_named(web: Web, folder: Path) -> None:
    whole = archive({"ckpt-5.index": np.random.default_rng(1).bytes(100_000)})
    bad = entry(f"{web.url}/a.tar.gz", form="deeplab2")
    for content in (whole[:50_000], whole[:-200] + bytes(200)):
        web.files["/a.tar.gz"] = File(content)
        with pytest.raises(
            ValueError, match=r"a_model\.tar\.gz was damaged and is removed: run the same command again"
        ):
            local_weights(bad, copy, QUICK)
        assert not (folder / "a_model.tar.gz").exists()
        (folder / "a_model.json").unlink()
    web.files["/a.tar.gz"] = File(archive({"readme.txt": b"hello"}))
    with pytest.raises(ValueError, match="holds no TensorFlow checkpoint"):
        local_weights(bad, copy, QUICK)


def test_a_conversion_that_fails_keeps_the_download(web: Web, folder: Path) -> None:
    def fail(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise ValueError("say which")

    file = web.files["/a.pth"] = File(CONTENT)
    with pytest.raises(ValueError, match="say which"):
        local_weights(entry(f"{web.url}/a.pth"), fail, QUICK)
    assert not (folder / "a_model.safetensors").exists()
    assert get(f"{web.url}/a.pth") == CONTENT
    assert len(file.asked) == 1


def test_a_full_or_closed_disk_is_one_sentence(web: Web, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web.files["/a.pth"] = File(CONTENT)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ValueError, match=r"700002 bytes are wanted and 1000 are free in .*cache"):
        get(f"{web.url}/a.pth")
    monkeypatch.setenv("KMAX_CACHE", "/proc/none")
    with pytest.raises(ValueError, match=r"/proc/none .* cannot be made .*: set KMAX_CACHE"):
        get(f"{web.url}/a.pth")


COMMAND = """
import sys
sys.path.insert(0, "tests/checkpoint")
from test_download import get
print(len(get(sys.argv[1])))
"""


@pytest.mark.long
def test_many_processes_download_once(web: Web, folder: Path) -> None:
    file = web.files["/a.pth"] = File(CONTENT, pause=0.5)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    command = [sys.executable, "-c", COMMAND, f"{web.url}/a.pth"]
    ranks = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    results = [rank.communicate(timeout=120) for rank in ranks]
    assert [out.strip() for out, _ in results] == [str(len(CONTENT))] * 3, results
    assert len(file.asked) == 1


def test_the_cache_is_where_users_expect_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KMAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache/kmax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg/kmax"
    monkeypatch.setenv("KMAX_CACHE", "~/mine")
    assert cache_dir() == tmp_path / "mine"


def test_a_container_without_a_home_has_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("KMAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "home", nobody)
    found = cache_dir()
    assert found.parent == tmp_path
    assert found.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: found.stat().st_uid + 1)
    (tmp_path / f"kmax-{found.stat().st_uid + 1}").mkdir()
    assert cache_dir().name.startswith("kmax-")
    assert cache_dir() != tmp_path / f"kmax-{os.getuid()}", "a folder that somebody else made is not trusted"
    monkeypatch.setattr(Path, "home", lambda: Path("/nonexistent"))
    assert cache_dir().parent == tmp_path


def test_a_record_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    for content in ("", "[]", '{"url": 1}', '{"url": "a", "published": {}, "converted": null}'):
        (tmp_path / "r.json").write_text(content)
        assert Record.read(tmp_path / "r.json") is None
    (tmp_path / "f").write_bytes(CONTENT)
    assert fingerprint(tmp_path / "f").size == len(CONTENT)
    assert cache.VARIABLE == "KMAX_CACHE"


def test_the_registry_is_complete() -> None:
    """Every file has an address, a license and, if it is a model, an experiment, parameters and published numbers."""
    found = published()
    assert len(found) == 48
    assert len({url for one in found.values() for url in one.urls}) == sum(len(one.urls) for one in found.values())
    experiments = {f.stem for f in (ROOT / "conf/experiment").glob("*.yaml")}
    for one in found.values():
        assert all(url.startswith("https://") for url in one.urls)
        assert one.license
        assert one.format in ("detectron2", "deeplab2")
        assert bool(one.experiment) != bool(one.backbone)
        if one.experiment:
            assert one.published["PQ"] > 40
            assert one.parameters
            assert one.experiment in experiments or one.family == "MaX-DeepLab"
    assert found["coco_resnet50_tf"].file_name == "kmax_resnet50_coco_train.tar.gz"
    assert found["coco_resnet50"].file_name == "coco_resnet50.pth"
    with pytest.raises(ValueError, match=r"nothing called coco_resnet_50: did you mean coco_resnet50"):
        find_published("coco_resnet_50")


def test_torch_files_pass_the_check_of_what_arrived(web: Web, folder: Path) -> None:
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"a": torch.ones(1)}, buffer, _use_new_zipfile_serialization=zipped)
        web.files["/a.pth"] = File(buffer.getvalue())
        assert get(f"{web.url}/a.pth") == buffer.getvalue()
        (folder / "a_model.safetensors").unlink()
        (folder / "a_model.json").unlink()
    with pytest.raises(TransferError):
        transfer(f"{web.url}/none", folder / "part", lambda *_: None, QUICK)

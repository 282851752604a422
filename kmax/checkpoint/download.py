"""Published weights by name: downloaded once, converted, checked, and kept in the user's cache.

For each name the cache holds the converted `NAME.safetensors` and the record of what was downloaded (`NAME.json`);
during the download also the published file, complete or in part, and a lock. Several processes, also on several
machines that share the folder, may ask for the same name at once: one works, the others wait.
"""

from __future__ import annotations

import errno
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import constants
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from safetensors.torch import save_file

from kmax.checkpoint.cache import VARIABLE, Record, cache_dir, fingerprint, locked
from kmax.checkpoint.foreign import read_entries
from kmax.checkpoint.published import ARCHIVE, Published
from kmax.checkpoint.transfer import Patience, TransferError, transfer, unreachable
from kmax.files import OUT_OF_SPACE, replacing

Convert = Callable[[Path, Path], None]
"""Converts the first path, a published file or the folder of an unpacked archive, into the second, a file of ours."""
HUGGING_FACE = "https://huggingface.co"
"""Host whose addresses are replaced by `$HF_ENDPOINT` if that names a mirror."""
_SIGNATURES = {ARCHIVE: (b"\x1f\x8b",), ".pth": (b"PK", b"\x80")}


def local_weights(entry: Published, convert: Convert, patience: Patience | None = None) -> Path:
    """The converted weights of a published file, downloaded and converted now if they are not in the cache.

    Raises:
        ValueError: they cannot be downloaded, or have changed; one sentence with the remedy.
    """
    target = cache_dir() / f"{entry.name}.safetensors"
    record = target.with_suffix(".json")
    if target.is_file():
        return _checked(target, record)
    with locked(target.with_suffix(".lock"), entry.name):
        if not target.is_file():
            _make(entry, target, record, convert, patience or Patience())
        return target


def fetch_backbone(entry: Published) -> Path:
    """ImageNet weights by name, with the names and layouts that they were published with: `load_imagenet` knows them.

    Raises:
        ValueError: as `local_weights`; weights of a whole model.
    """
    if not entry.backbone:
        raise ValueError(f"{entry.name} is a whole model, not a backbone: start from it with init_from={entry.name}.")
    return local_weights(entry, lambda source, target: save_file(read_entries(source), target))


def _checked(target: Path, record: Path) -> Path:
    """The converted file, if it is still the one that was written."""
    known = Record.read(record)
    if known and known.converted and known.converted != fingerprint(target):
        raise ValueError(f"{target} is not what was written there: remove it, and it is made again.")
    return target


def _make(entry: Published, target: Path, record: Path, convert: Convert, patience: Patience) -> None:
    source, url = _source(entry, target.parent, patience)
    known, found = Record.read(record), fingerprint(source)
    if known and known.published != found:
        raise ValueError(
            f"{source} is not the file that was first downloaded as {entry.name} (SHA-256 {found.sha256[:12]}…, then "
            f"{known.published.sha256[:12]}…): remove it if it is damaged, or {record} if the new one is right."
        )
    Record(url, found).write(record)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{entry.name}-") as folder:
            unpacked = unpack(source, Path(folder)) if source.name.endswith(ARCHIVE) else source
            with replacing(target) as file:
                convert(unpacked, file)
                Record(url, found, fingerprint(file)).write(record)
    except OSError as error:
        raise _explained(error, target) from error
    source.unlink()


def _source(entry: Published, folder: Path, patience: Patience) -> tuple[Path, str]:
    """The published file and its address: from the cache, if somebody put it there, otherwise downloaded now."""
    source = folder / f"{entry.name}{entry.suffix}"
    for path in (source, folder / entry.file_name):
        if path.is_file():
            return path, str(path)
    urls = [url.replace(HUGGING_FACE, constants.ENDPOINT) for url in entry.urls]
    problems = unreachable(urls, patience.connect)
    for url in urls:
        if url in problems:
            continue
        try:
            _download(url, source, entry.name, patience)
        except TransferError as error:
            problems[url] = str(error)
        except OSError as error:
            raise _explained(error, source) from error
        else:
            return source, url
    raise ValueError(
        f"{entry.name} cannot be downloaded ({'; '.join(dict.fromkeys(problems.values()))}): get {entry.urls[0]} "
        f"elsewhere and put it at {source}."
    )


def _download(url: str, source: Path, title: str, patience: Patience) -> None:
    part = source.with_name(source.name + ".part")
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=None)
        transfer(url, part, lambda have, total: progress.update(task, completed=have, total=total), patience)
    with part.open("rb") as file:
        start = file.read(2)
    known = next(starts for suffix, starts in _SIGNATURES.items() if source.name.endswith(suffix))
    if not start.startswith(known):
        part.unlink()
        raise TransferError("what arrived is no file of weights")
    part.replace(source)


def unpack(archive: Path, folder: Path) -> Path:
    """The TensorFlow checkpoint in a `.tar.gz`, its files side by side in `folder`; nothing else is written.

    Raises:
        ValueError: the archive is damaged or holds no checkpoint; a damaged one is removed.
    """
    found = False
    try:
        with tarfile.open(archive, "r|gz") as content:
            for member in content:
                name = Path(member.name).name  # never a path: an archive might point anywhere
                stream = content.extractfile(member) if member.isfile() and _is_checkpoint(name) else None
                if stream is not None:
                    with stream, (folder / name).open("wb") as file:
                        while chunk := stream.read(1 << 20):
                            file.write(chunk)
                    found = True
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno in OUT_OF_SPACE:
            raise
        archive.unlink()
        raise ValueError(f"{archive} was damaged and is removed: run the same command again.") from error
    if not found:
        raise ValueError(f"{archive} holds no TensorFlow checkpoint: remove it, and get the right file.")
    return folder


def _is_checkpoint(name: str) -> bool:
    return not name.startswith(".") and (name.endswith(".index") or ".data-" in name)


def _explained(error: OSError, path: Path) -> Exception:
    """A full disk or a folder that cannot be written as one sentence; other errors as they are."""
    if error.errno in (*OUT_OF_SPACE, errno.EACCES, errno.EROFS, errno.EPERM):
        return ValueError(f"{path} cannot be written ({error.strerror}): set {VARIABLE} to a folder with space.")
    return error

"""Find out within a second whether timm's weights can be downloaded: timm itself retries for most of a minute."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from urllib.request import Request, urlopen

import timm
from huggingface_hub import constants, try_to_load_from_cache

FILES = ("model.safetensors", "pytorch_model.bin")
PATIENCE = 0.9
"""Seconds to wait. Looking up a host name may block for longer than a socket's timeout, so a thread does it."""


def require_download(name: str) -> None:
    """Make sure that timm's weights of the model `name` are cached or can be downloaded.

    Raises:
        ValueError: they are not, or timm has none; the message names the file to get and the option to set.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url or config.file):
        raise ValueError(f"timm has no weights for {name}: set pretrained to false, or to the path of a file.")
    repository = str(config.hf_hub_id or "")
    if repository.endswith("/"):
        repository += f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    if repository and any(isinstance(try_to_load_from_cache(repository, file), str) for file in FILES):
        return
    address = f"{constants.ENDPOINT}/{repository}/resolve/main/{FILES[0]}" if repository else str(config.url)
    problem = _unreachable(address)
    if problem:
        raise ValueError(
            f"The weights of {name} cannot be downloaded ({problem}): get {address} elsewhere and set "
            "pretrained=PATH, or pretrained=false to train from scratch."
        )


def _unreachable(address: str) -> str:
    """Why an address cannot be reached; nothing if it can."""
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return "HF_HUB_OFFLINE=1"
    pool = ThreadPoolExecutor(1)
    try:
        pool.submit(_open, address).result(timeout=PATIENCE)
        return ""
    except TooSlow:
        return "no answer within a second"
    except (OSError, ValueError) as error:  # urllib's errors are OSErrors
        return str(error)
    finally:
        pool.shutdown(wait=False)


def _open(address: str) -> None:
    urlopen(Request(address, method="HEAD"), timeout=PATIENCE).close()

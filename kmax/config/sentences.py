"""The message of an error as one sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from omegaconf.errors import OmegaConfBaseException

from kmax.console import plain

OPTION_OF = {
    "the folder of the run": "hydra.run.dir",
    "the dataset's folder": "dataset.root",
    "the list of classes": "dataset.categories",
    "the training set and its annotations": "dataset.train",
    "the number of samples": "loss.samples",
    "the scale of training": "dataset.scale",
    "the metric of the best checkpoint": "metric",
    "the metric of pruning": "callbacks.pruning.monitor",
    "the learning rate": "optimizer.lr",
    "the precision": "strategy.precision",
    "the number of devices": "strategy.devices",
    "batch size per device": "strategy.batch_size_per_device",
    "synchronized batch norm": "strategy.sync_batchnorm",
    "the pretrained weights": "backbone.pretrained",
    "the backbone's name": "backbone.name",
    "the number of queries": "model.num_queries",
}
"""How the rooms below speak of an option, which know no key, and its key on the command line."""
_NAMED = re.compile(rf"\b({'|'.join(map(re.escape, OPTION_OF))})\b(?! \()", re.IGNORECASE)
_IN_ARGUMENT = re.compile(r"\$\{oc\.env:([A-Za-z_]\w*)\}")
_NOT_FOUND = re.compile(r"Environment variable '(.+?)' not found")


def sentence_of(error: BaseException) -> str:
    """The sentence of an error that its reader can act on.

    In an error from a DataLoader's worker it is the last line of that worker's traceback; an error from OmegaConf
    begins with it and continues with internals.
    """
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    if isinstance(error, OmegaConfBaseException):
        return _about_option(lines[0], str(error.full_key or ""))
    sentence = lines[-1]
    for prefix in ("ValueError: ", "FileNotFoundError: "):
        sentence = sentence.removeprefix(prefix)
    return with_keys(plain(sentence))


def with_keys(sentence: str) -> str:
    """The sentence with the key of each option that it names: "lower the learning rate (optimizer.lr)"."""

    def with_key(found: re.Match[str]) -> str:
        key = OPTION_OF[found[1].lower()]
        return found[1] if "." in key and key in sentence else f"{found[1]} ({key})"

    return _NAMED.sub(with_key, sentence)


def _about_option(problem: str, key: str) -> str:
    unset = _NOT_FOUND.search(problem)
    if unset:
        return _unset(unset[1], key)
    return f"{key}: {problem}" if key and key not in problem else problem


def _unset(variable: str, key: str) -> str:
    return (
        f"{key + ': ' if key else ''}the environment variable {variable} is not set: export {variable}=VALUE before "
        f"the start, or write the value itself{f', {key}=VALUE' if key else ''}."
    )


def unset_variable(arguments: Sequence[str]) -> str | None:
    """A sentence about the first argument that asks for an environment variable which is not set."""
    for argument in arguments:
        for name in _IN_ARGUMENT.findall(argument):
            if name not in os.environ:
                return _unset(name, argument.partition("=")[0].lstrip("+~"))
    return None

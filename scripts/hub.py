"""Share a checkpoint through a hub, or fetch one.

    python scripts/hub.py push runs/demo/checkpoints/best.ckpt user/name --private
    python scripts/hub.py push best.ckpt user/name --license apache-2.0 --metrics runs/evaluate/metrics.json
    python scripts/hub.py push coco_resnet50 user/name                 # a name of the model zoo: converted weights
    python scripts/hub.py pull user/name model.safetensors

Only weights, configuration and classes go up, with a model card: classes, license, and what evaluate.py measured. A
REPOSITORY that begins with `.`, `/` or `~` is a local folder. Logging in is huggingface_hub's: `hf auth login`, or
HF_TOKEN.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kmax.checkpoint.hub import CardInfo, SharedModel
from kmax.checkpoint.own import write_checkpoint
from kmax.config.explain import run_or_explain
from kmax.config.pretrained import checkpoint_path
from kmax.files import Json


def local_folder(repository: str) -> Path | None:
    """The local folder that a repository's name means, if any."""
    return Path(repository).expanduser() if repository.startswith((".", "/", "~")) else None


def read_metrics(path: str) -> Json:
    """The content of a metrics.json.

    Raises:
        FileNotFoundError, ValueError: no such file; something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no {path}: give the metrics.json that evaluate.py wrote.")
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("all"), dict):
        raise ValueError(f"{path} is no metrics.json of evaluate.py: give the one that it wrote.")
    return content


def push(source: str, repository: str, private: bool = False, info: CardInfo = CardInfo()) -> str:  # noqa: B008
    """Upload a checkpoint of ours; return its address.

    Raises:
        FileNotFoundError, ValueError: the checkpoint; a hub that refuses or cannot be reached.
    """
    model, folder = SharedModel.from_checkpoint(checkpoint_path(source), info), local_folder(repository)
    if folder:
        model.save_pretrained(folder)
        return str(folder)
    try:
        return str(model.push_to_hub(repository, private=private))
    except Exception as error:  # the hub's client raises a dozen types of exceptions
        raise ValueError(f"{source} cannot be pushed to {repository}: {_first_line(error)}") from error


def pull(repository: str, target: str) -> None:
    """Download a checkpoint and write it as a file of ours, `.ckpt` or `.safetensors`.

    Raises:
        FileNotFoundError, ValueError: the repository, or what it holds.
    """
    folder = local_folder(repository)
    if folder:
        model = SharedModel.from_checkpoint(folder)
    else:
        try:
            model = SharedModel.from_pretrained(repository)
        except Exception as error:  # the hub's client raises a dozen types of exceptions
            raise ValueError(f"{repository} cannot be pulled: {_first_line(error)}") from error
    write_checkpoint(target, model.checkpoint)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def run(arguments: argparse.Namespace) -> None:
    """Run the command line."""
    if arguments.command == "push":
        info = CardInfo(arguments.license, read_metrics(arguments.metrics) if arguments.metrics else None)
        print(f"pushed to {push(arguments.source, arguments.repository, arguments.private, info)}")
    else:
        pull(arguments.repository, arguments.target)
        print(f"wrote {arguments.target}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("push", help="upload a checkpoint of ours")
    up.add_argument("source", metavar="CHECKPOINT")
    up.add_argument("repository", metavar="REPOSITORY")
    up.add_argument("--private", action="store_true")
    up.add_argument("--license", help="of your weights, e.g. apache-2.0; converted weights have theirs")
    up.add_argument("--metrics", metavar="FILE", help="metrics.json of evaluate.py, for the model card")
    down = commands.add_parser("pull", help="download one")
    down.add_argument("repository", metavar="REPOSITORY")
    down.add_argument("target", metavar="TARGET")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_or_explain(run, parse())

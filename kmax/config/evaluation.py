"""The configuration of an evaluation: a checkpoint's, under what the command line says."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kmax.checkpoint.own import CATEGORIES_KEY, CONFIG_KEY, read_checkpoint
from kmax.config.schema import DatasetConfig
from kmax.strategy.batch_plan import num_devices


def evaluation_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration a checkpoint was trained with, and its categories, under what evaluation says: its hardware,
    batch size, metrics and whatever `dataset.…` and `inference.…` name. With another `dataset.root`, the paths below
    move along.

    Raises:
        FileNotFoundError, ValueError: the checkpoint, or a key or value that its configuration does not take.
    """
    checkpoint = read_checkpoint(config["ckpt"])
    trained, dataset = checkpoint[CONFIG_KEY], {k: v for k, v in config["dataset"].items() if v is not None}
    inference = {**dataset.pop("inference", {}), **{k: v for k, v in config["inference"].items() if v is not None}}
    merged = OmegaConf.structured(DatasetConfig)
    for name, section, part in (
        ("dataset", merged, _moved(trained["dataset"], dataset.get("root"))),
        ("dataset", merged, dataset),
        ("inference", merged.inference, inference),
    ):
        try:
            section.merge_with(part)
        except OmegaConfBaseException as error:
            sentence = str(error).splitlines()[0].rstrip(".")
            raise ValueError(f"evaluate.py: {name}: {sentence}. Known keys: {', '.join(section)}.") from error
    strategy = {**config["strategy"], "val_batch_size_per_device": config["batch_size"], "batch_size_per_device": 1}
    # Nothing is trained: one image per device, so that any number of devices will do.
    merged.batch_size = num_devices(strategy["devices"], strategy["accelerator"]) * strategy["num_nodes"]
    return {
        **trained,
        "dataset": OmegaConf.to_container(merged, resolve=True),
        "strategy": strategy,
        "trainer": {**trained["trainer"], "val_metrics": config["metrics"]},
        CATEGORIES_KEY: checkpoint[CATEGORIES_KEY],
    }


def _moved(section: dict[str, Any], root: str | None) -> dict[str, Any]:
    """A dataset section whose paths below its own root lie below another one."""
    old = str(section["root"])

    def move(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: move(item) for key, item in value.items()}
        inside = isinstance(value, str) and (value == old or value.startswith(f"{old}/"))
        return f"{root}{value[len(old) :]}" if inside else value

    return section if root is None else move(section)

"""The schema of the configuration, for Hydra: misspelled keys and wrong types fail while it is composed."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from kmax.config.options import DemoOptions, EvaluateOptions, ExportOptions, PredictOptions, TrainOptions

ROOTS = {
    "train": TrainOptions,
    "evaluate": EvaluateOptions,
    "predict": PredictOptions,
    "export": ExportOptions,
    "demo": DemoOptions,
}
"""The options of each program."""
OPEN_SECTIONS = ("dataset", "inference")
"""Sections of `evaluate.py` and `predict.py` that take any key; they are checked against the checkpoint's."""


def schema(kind: type) -> DictConfig:
    """An options dataclass as OmegaConf checks it; frozen dataclasses would make the configuration read-only."""
    config: DictConfig = OmegaConf.structured(kind)
    _thaw(config)
    for name in OPEN_SECTIONS:
        node = config._get_node(name) if name in config else None
        if isinstance(node, DictConfig) and OmegaConf.get_type(node) is dict:
            OmegaConf.set_struct(node, False)
    return config


def _thaw(config: DictConfig) -> None:
    config._set_flag("readonly", None)
    for name in config:
        node = config._get_node(name)
        if isinstance(node, DictConfig) and not node._is_missing():
            _thaw(node)


def store_schemas() -> None:
    """Register the schemas with Hydra; calling it again changes nothing."""
    for name, kind in ROOTS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=schema(kind))

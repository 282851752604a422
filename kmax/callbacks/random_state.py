"""The random numbers of every rank, kept in the checkpoint."""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from kmax.checkpoint.own import CheckpointDict
from kmax.files import Json

KEY = "random_states"


class RandomState(Callback):
    """Every rank has its own random numbers, and a resumed run draws the same ones as an uninterrupted run.

    The states of Python, NumPy, torch on the CPU and on the rank's own GPU are gathered into each checkpoint.
    """

    def __init__(self) -> None:
        self._loaded: list[Json] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rank = trainer.global_rank
        if rank < len(self._loaded):
            set_random_state(self._loaded[rank])
        else:
            seed = torch.initial_seed() + rank
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
        self._loaded = []

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: CheckpointDict) -> None:
        states: list[Json | None] = [random_state(trainer.strategy.root_device)]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, random_state(trainer.strategy.root_device))
        checkpoint[KEY] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: CheckpointDict) -> None:
        self._loaded = checkpoint.get(KEY, [])


def random_state(device: torch.device) -> Json:
    """The state of all generators, in types that `torch.load(…, weights_only=True)` reads."""
    numpy: Json = dict(np.random.get_state(legacy=False))
    numpy["state"] = {"key": numpy["state"]["key"].tolist(), "pos": numpy["state"]["pos"]}
    state = {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Json) -> None:
    """Restore the state of all generators that `random_state` has returned."""
    random.setstate(state["python"])
    numpy = {**state["numpy"], "state": {**state["numpy"]["state"]}}
    numpy["state"]["key"] = np.array(numpy["state"]["key"], np.uint32)
    np.random.set_state(numpy)
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())

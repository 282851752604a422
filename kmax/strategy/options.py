"""The options of the hardware. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kmax.options import OptionError, Options, option

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true")
BATCH_RULES = ("keep", "scale")


@dataclass(frozen=True)
class StrategyOptions(Options):
    """Devices, precision and loaders; nothing in here changes what is learned, but `batch_rule=scale`."""

    accelerator: str = option("auto", "kind of device", choices=ACCELERATORS)
    devices: Any = option(1, "devices per node: a number, a list of indices, or −1 for all")
    num_nodes: int = option(1, "machines that train together", at_least=1)
    strategy: str = option("auto", "Lightning's strategy, e.g. ddp")
    precision: str = option("32-true", "floating-point precision of training", choices=PRECISIONS)
    sync_batchnorm: bool = option(False, "batch norms share their statistics over all devices")
    batch_size_per_device: int | None = option(
        None, "images a device holds at once; null: the dataset's batch split over the devices", at_least=1
    )
    batch_rule: str = option(
        "keep",
        "keep: accumulate to the dataset's batch; scale: follow the devices",
        choices=BATCH_RULES,
    )
    val_batch_size_per_device: int = option(1, "images of a validation batch", at_least=1)
    num_workers: int = option(4, "processes per loader; 0 reads in the process itself", at_least=0)
    channels_last: bool = option(True, "lay weights and features out channels last")
    compile: bool = option(False, "compile the model")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_devices(self.devices)


def check_devices(devices: object) -> None:
    """Refuse numbers of devices that mean none.

    Raises:
        OptionError: neither a positive number, −1, "auto", nor a list of indices.
    """
    number = str(devices).lstrip("+")
    listed = isinstance(devices, (list, tuple)) and devices and all(type(d) is int and d >= 0 for d in devices)
    if not listed and number not in ("-1", "auto") and not (number.isdigit() and int(number) >= 1):
        raise OptionError(f"devices={devices} must be at least 1, −1 or auto for all, or a list such as [0,2].")

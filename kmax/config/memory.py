"""How much memory a run needs, estimated without a GPU: fake tensors have shapes and no data.

The forward pass runs under fp16 autocast, while what autograd keeps for the backward pass is added up and FLOPs are
counted. The losses run on random predictions.

Memory = 22 bytes per parameter (fp32 weight, gradient and two moments of AdamW: 16; DDP's buckets: 4; autocast's fp16
copies: 2) + images × what is kept per image + 1.5 GiB for the CUDA context, workspaces and fragmentation.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kmax.categories import load_categories
from kmax.config.build import model_from_options
from kmax.config.checks import plan_of
from kmax.config.options import TrainOptions
from kmax.losses import Criterion
from kmax.model import Network
from kmax.options import Plain
from kmax.strategy.fake import to_fake
from kmax.structures import Output, Prediction, Target

GIB = 2**30
BYTES_PER_PARAMETER = 22
OVERHEAD = 1.5 * GIB
BATCH = 2  # batch norm after global pooling wants more than one value per channel


@dataclass(frozen=True)
class Cost:
    """`parameters`; bytes that one image keeps until the backward pass, `kept`; `flops` of its forward pass."""

    parameters: int
    kept: int
    flops: int

    def memory(self, images: int) -> float:
        """Estimated bytes on a GPU that trains with `images` images."""
        return BYTES_PER_PARAMETER * self.parameters + images * self.kept + OVERHEAD

    def images(self, memory: float) -> int:
        """How many images fit into `memory` bytes."""
        return max(0, int((memory - self.memory(0)) // self.kept))


class Kept:
    """Bytes of the storages that autograd saves while this is entered, without those of `known` tensors."""

    def __init__(self, known: Sequence[Tensor] = ()) -> None:
        self._known = {t.untyped_storage()._cdata for t in known}
        self._storages: dict[int, torch.UntypedStorage] = {}  # kept alive, so that no address is used twice
        self._hooks = saved_tensors_hooks(self._note, lambda tensor: tensor)

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._storages[storage._cdata] = storage
        return tensor

    def __enter__(self) -> Kept:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    @property
    def bytes(self) -> int:
        """The number of bytes."""
        return sum(storage.nbytes() for storage in self._storages.values())


def measure(options: TrainOptions, size: tuple[int, int]) -> Cost:
    """The cost of one image of `size` for a model in training.

    Args:
        options: of an experiment.
    """
    classes = load_categories(options.dataset.categories).num_classes
    model = _model(options, classes).train()
    parameters = sum(p.numel() for p in model.parameters())
    with FakeTensorMode(), FlopCounterMode(display=False) as flops:
        to_fake(model)
        with Kept([*model.parameters(), *model.buffers()]) as kept, torch.autocast("cpu", torch.float16):
            output = model(torch.empty(BATCH, 3, *size))
    # Autocast's copies of the weights are kept too, once for all images; they count with the parameters.
    forward = (kept.bytes - 2 * parameters) // BATCH
    return Cost(parameters, forward + loss_bytes(options, output, classes), flops.get_total_flops() // BATCH)


def loss_bytes(options: TrainOptions, output: Output, classes: int) -> int:
    """Bytes that the losses of one image keep, with random predictions of the shapes of `output` and ten segments."""

    def random(tensor: Tensor) -> Tensor:
        """A random tensor of length 1 over channels, like pixel features."""
        return nn.functional.normalize(torch.randn(1, *tensor.shape[1:]), dim=1).requires_grad_()

    predictions = tuple(Prediction(*(random(part) for part in prediction)) for prediction in output.predictions)
    semantic = None if output.semantic_logits is None else random(output.semantic_logits)
    height, width = predictions[-1].mask_logits.shape[-2:]
    rows = torch.arange(height) * 10 // height
    target = Target(rows[:, None].expand(height, width).contiguous(), torch.arange(10) % classes)
    given = [part for prediction in predictions for part in prediction]
    with Kept([*given, *([] if semantic is None else [semantic])]) as kept:
        losses = Criterion(classes, options.loss)(Output(predictions, semantic), [target])
    assert all(torch.isfinite(loss) for loss in losses.by_name().values())
    return kept.bytes


def recomputed(options: TrainOptions) -> TrainOptions:
    """The options with the activations of backbone and decoders computed again in the backward pass."""
    backbone, model = replace(options.backbone, checkpointing=True), replace(options.model, checkpointing=True)
    return replace(options, backbone=backbone, model=model)


def _model(options: TrainOptions, classes: int) -> Network:
    """The network of a run, without data."""
    with torch.device("meta"):
        return model_from_options(replace(options.backbone, pretrained=False), options.model, classes)


class Live(TorchDispatchMode):
    """The most bytes of results that exist at the same time while this is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._now = 0
        self.most = 0
        self._users: dict[int, int] = {}  # storage → tensors that share it

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Plain | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        self.most = max(self.most, self._now)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        self._users[key] = self._users.get(key, 0) + 1
        if self._users[key] == 1:
            self._now += size
        weakref.finalize(tensor, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self._now -= size


def inference_bytes(options: TrainOptions, size: tuple[int, int]) -> int:
    """The most bytes that results of the forward pass of one image of `size` occupy in validation, in float16.

    Post-processing works in strips, and needs less than the network.
    """
    model = _model(options, load_categories(options.dataset.categories).num_classes).eval()
    with FakeTensorMode(), torch.no_grad():
        to_fake(model)
        image = torch.empty(1, 3, *size)
        with torch.autocast("cpu", torch.float16, cache_enabled=False), Live() as live:
            model(image)
    most: int = live.most
    return most


@contextmanager
def explained_memory(options: TrainOptions) -> Iterator[None]:
    """Turn PyTorch's errors about memory into a sentence that says what helps.

    Raises:
        ValueError: there was not enough memory, on a GPU or on a CPU.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        images = plan_of(options.strategy, options.dataset.batch_size).batch_size_per_device
        raise ValueError(out_of_memory(options, images)) from error


REMEDIES = {
    "backbone.checkpointing=true model.checkpointing=true": "the activations computed again, with equal results",
    "backbone.freeze=all": "the backbone not trained",
}
"""What saves most besides fewer images at once, and what it means."""


def out_of_memory(options: TrainOptions, images: int) -> str:
    """A sentence for a training that ran out of memory with `images` images per device, with what helps most."""
    size = options.dataset.size
    cost = measure(options, size)
    half = max(1, images // 2)
    offers = [] if half == images else [f"strategy.batch_size_per_device={half} (the same result)"]
    needs = [] if half == images else [cost.memory(half)]
    frozen = replace(options, backbone=replace(options.backbone, freeze="all"))
    for (option, meaning), chosen in zip(REMEDIES.items(), (recomputed(options), frozen), strict=True):
        memory = measure(chosen, size).memory(images) if chosen != options else cost.memory(images)
        if memory < 0.97 * cost.memory(images):
            offers.append(f"{option} ({meaning})")
            needs.append(memory)
    parts = [f"{offer}: {need / GIB:.1f} GiB" for offer, need in zip(offers, needs, strict=True)]
    if len(parts) < 3:
        side = (size[0] - 1) // 64 * 32 + 1
        parts.append(f"dataset.size=[{side},{side}]: {measure(options, (side, side)).memory(images) / GIB:.1f} GiB")
    return (
        f"Out of memory with {images} images of {size[0]}×{size[1]} per device, estimated to need "
        f"{cost.memory(images) / GIB:.1f} GiB. What helps most: {'; '.join(parts)}."
    )

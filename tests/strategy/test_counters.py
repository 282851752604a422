"""How many kernels a training step launches, and how often the host waits for them: budgets that need no GPU.

The tensors are fake: of a "GPU" in the forward pass; on the meta device, which takes the same branches, where there is
a backward pass, since autograd asks a GPU's driver for its streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing._internal.distributed.fake_pg import FakeStore

from kmax.config.build import build_model
from kmax.losses import Criterion, matching
from kmax.strategy.counters import DeviceCounter
from kmax.strategy.fake import to_fake
from kmax.strategy.sync_norm import synchronize
from kmax.structures import Output, Prediction, Target
from small_run import SMALL_MODEL

ASSIGNMENT = 2  # copies: scores to the host, pairs back
MODELS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "small": (None, tuple(SMALL_MODEL)),
    "resnet50": ("coco_resnet50", ()),
}
LAUNCHES = {"small": 700, "resnet50": 1450}


def _gpus_can_be_fake() -> bool:
    with FakeTensorMode():
        try:
            torch.empty(1, device="cuda").copy_(torch.ones(1))
        except RuntimeError:
            return False
    return True


needs_fake_gpu = pytest.mark.skipif(not _gpus_can_be_fake(), reason="this PyTorch asks the driver about fake tensors")


@pytest.fixture(autouse=True)
def _assignment_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors have no values to be assigned by: the copies are made, the solution is made up."""

    def assign(similarity: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        batch, queries, segments = similarity.shape
        similarity.nan_to_num(0.0, 0.0, 0.0).cpu()
        both = torch.zeros(batch, segments + 2 + queries, dtype=torch.long, device="cpu").to(similarity.device)
        return both[:, : segments + 2], both[:, segments + 2 :]

    monkeypatch.setattr(matching, "_assign", assign)


@pytest.fixture
def _two_ranks() -> Iterator[None]:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


def without_data(name: str) -> nn.Module:
    """A model in training on the meta device."""
    experiment, overrides = MODELS[name]
    with torch.device("meta"):
        return build_model(experiment, *overrides).train()


def targets(batch: int, size: int, device: str, segments: int = 20) -> list[Target]:
    return [
        Target(
            torch.zeros(size, size, dtype=torch.long, device=device),
            torch.zeros(segments, dtype=torch.long, device=device),
        )
        for _ in range(batch)
    ]


def predictions(batch: int, size: int, device: str, queries: int = 128, classes: int = 133) -> Output:
    """Seven predictions as `coco_resnet50` makes them, and semantic logits."""

    def leaf(*shape: int) -> Tensor:
        return torch.empty(batch, *shape, device=device, requires_grad=True)

    coarse = [-(-size // stride) for stride in (8, 8, 4, 4, 2, 2, 1)]
    made = [Prediction(leaf(queries, classes + 1), leaf(queries, size, size), leaf(128, f, f)) for f in coarse]
    return Output(tuple(made), leaf(classes + 1, size, size))


@pytest.mark.parametrize(("batch", "budget"), [(8, 1000), pytest.param(2, 900, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "device", [pytest.param("cuda", marks=needs_fake_gpu), pytest.param("meta", marks=pytest.mark.long)]
)
def test_the_criterion_stays_within_its_launches(batch: int, budget: int, device: str) -> None:
    with FakeTensorMode():
        output, truth = predictions(batch, 321, device), targets(batch, 321, device)
        with DeviceCounter() as counter:
            Criterion(133)(output, truth)
    assert counter.waits == ASSIGNMENT, counter.waits_by_operator
    assert 300 < counter.launches <= budget, counter.by_operator


@pytest.mark.long
@needs_fake_gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_forward_pass_waits_for_nothing(name: str) -> None:
    model = without_data(name)
    with FakeTensorMode():
        to_fake(model, "cuda")
        images = torch.empty(2, 3, 129, 129, device="cuda")
        with DeviceCounter() as counter:
            model(images)
    assert counter.waits == 0, counter.waits_by_operator
    assert LAUNCHES[name] / 4 < counter.launches <= LAUNCHES[name], counter.by_operator


def step(name: str, sync: bool) -> DeviceCounter:
    """A whole training step on the meta device: forward, losses, backward, optimizer."""
    model = synchronize(without_data(name)) if sync else without_data(name)
    with FakeTensorMode():
        to_fake(model, "meta")
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
        images, truth = torch.empty(2, 3, 129, 129, device="meta"), targets(2, 33, "meta")
        with DeviceCounter() as counter:
            output = model(images)
            Criterion(output.predictions[-1].class_logits.shape[-1] - 1)(output, truth).total.backward()
            optimizer.step()
    return counter


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_waits_for_the_assignment_only(name: str) -> None:
    counter = step(name, sync=False)
    assert counter.waits <= ASSIGNMENT, counter.waits_by_operator


@pytest.mark.long
@pytest.mark.usefixtures("_two_ranks")
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "small")) for name in MODELS])
def test_synchronized_norms_wait_for_nothing_and_exchange_once_per_pass(name: str) -> None:
    counter = step(name, sync=True)
    assert counter.waits <= ASSIGNMENT, counter.waits_by_operator
    norms = sum(isinstance(module, _BatchNorm) for module in without_data(name).modules())
    assert counter.by_operator["sum_over_ranks"] == 2 * norms


@pytest.mark.slow
@pytest.mark.usefixtures("_two_ranks")
def test_no_graph_breaks_under_synchronized_norms() -> None:
    experiment, overrides = MODELS["small"]
    model = synchronize(build_model(experiment, *overrides).train())
    explained = torch._dynamo.explain(model)(torch.zeros(2, 3, 65, 65))
    assert explained.graph_break_count == 0, explained.break_reasons


@needs_fake_gpu
def test_the_counter_counts() -> None:
    with FakeTensorMode():
        x = torch.empty(4, 4, device="cuda")
        with DeviceCounter() as counter:
            x.copy_(torch.ones(4, 4))
            x[-1:] = 1.0  # a fill
            x.t()[0].view(2, 2)
            (x > 0).cpu()
            x.to("cpu", non_blocking=True)
            torch.zeros(3) + 1  # on the host
    assert counter.waits_by_operator == {"copy_": 1, "_to_copy": 1}
    assert counter.by_operator == {"copy_": 1, "fill_": 1, "gt": 1, "_to_copy": 2}
    values = torch.arange(3.0)
    with DeviceCounter(host="none") as counter:
        assert float(values.sum()) == 3
        values[values > 1]
    assert counter.waits == 2
    assert counter.by_operator["sum"] == 1

"""What is asked of the machine before anything is computed."""

from __future__ import annotations

import pytest
import torch

from kmax.strategy.hardware import check_architectures, check_hardware, has_code_for
from kmax.strategy.options import StrategyOptions

WHEEL = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")


@pytest.mark.parametrize(
    ("capability", "built", "expected"),
    [
        ((7, 0), WHEEL, False),  # V100
        ((7, 5), WHEEL, True),
        ((8, 9), WHEEL, True),  # runs sm_86
        ((9, 0), ("sm_90a",), True),
        ((12, 1), WHEEL, True),
        ((13, 0), WHEEL, True),  # by compiling compute_120
        ((13, 0), ("sm_120",), False),
        ((8, 0), ("sm_86",), False),
    ],
)
def test_machine_code_fits_its_own_generation(
    capability: tuple[int, int], built: tuple[str, ...], expected: bool
) -> None:
    assert has_code_for(*capability, built) == expected


def test_a_card_that_torch_was_not_built_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(WHEEL))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: ("NVIDIA A100", "Tesla V100")[device])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: ((8, 0), (7, 0))[device])
    with pytest.raises(ValueError, match=r"no code for Tesla V100 \(sm_70\), only for sm_75"):
        check_architectures()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_architectures()


@pytest.mark.parametrize(
    ("accelerator", "precision", "sentence"),
    [
        ("mps", "32-true", "^accelerator=mps, but there is no Apple GPU .*strategy=cpu"),
        ("cuda", "32-true", "^accelerator=cuda, but torch sees no GPU: choose strategy=cpu"),
        ("gpu", "16-mixed", "^accelerator=gpu, but torch sees no GPU"),
        ("cpu", "16-mixed", "^precision=16-mixed needs a GPU: choose bf16-mixed or 32-true"),
        ("auto", "16-mixed", "^precision=16-mixed needs a GPU"),
    ],
)
def test_what_this_machine_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, precision: str, sentence: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=sentence):
        check_hardware(StrategyOptions(accelerator=accelerator, precision=precision))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_a_cpu_takes_what_it_can_compute(precision: str) -> None:
    check_hardware(StrategyOptions(accelerator="cpu", precision=precision))

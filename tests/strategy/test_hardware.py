"""What is asked of the machine before anything is computed."""

from __future__ import annotations

import pytest
import torch

from kmax.strategy.hardware import check_architectures, has_code_for

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

"""Tests on the card npu: collected only where there is one, emulated or real.

``tests/integration/test_emulated_cards.py`` runs them in a process of their own for each file, as
torch_npu changes torch for good. By hand: ``python -m ascend python -m pytest tests/npu``, with
``PYTHONPATH=tests``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

HAS_CARDS = "EMULATED_CANN_CARDS" in os.environ
collect_ignore_glob = [] if HAS_CARDS else ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def cards() -> Iterator[None]:
    """Load torch_npu; with one thread, or sums would be split differently (see conftest.py)."""
    import torch

    from wav2lip_npu.runtime.device import Device

    assert torch.get_num_threads() == 1
    Device.open("npu")
    # Autograd has a thread of its own for each card; in the main thread errors come at their place.
    with torch.autograd.set_multithreading_enabled(False):
        yield


@pytest.fixture
def exact_fp32() -> Iterator[None]:
    """Convolutions and products in fp32: a card takes HF32 unless it is told not to."""
    import torch

    before = torch.npu.conv.allow_hf32, torch.npu.matmul.allow_hf32
    torch.npu.conv.allow_hf32 = torch.npu.matmul.allow_hf32 = False
    yield
    torch.npu.conv.allow_hf32, torch.npu.matmul.allow_hf32 = before

"""The module ``torch.npu``: what torch itself and the package ask of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

Where = torch.device | str | int

_device = torch.ops.npu_device
_owner = os.getpid()

device_count = _device.device_count
current_device = _device.current_device
reset_peak_memory_stats = _device.reset_peak_memory_stats


class config:
    """Settings of torch_npu, for tests to look at."""

    allow_internal_format = True
    jit_compile = True


def set_compile_mode(*, jit_compile: bool) -> None:
    config.jit_compile = jit_compile


def is_available() -> bool:
    return True


def is_initialized() -> bool:
    return True


def is_bf16_supported() -> bool:
    return True


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16]


def set_device(device: Where) -> None:
    _device.set_device(_card(device))


@contextmanager
def device(wanted: Where) -> Iterator[None]:
    """Another card for a while."""
    former = current_device()
    set_device(wanted)
    try:
        yield
    finally:
        set_device(former)


def synchronize(device: Where | None = None) -> None:
    """Everything is done already."""


def memory_allocated(device: Where | None = None) -> int:
    return _device.memory_allocated()


def max_memory_allocated(device: Where | None = None) -> int:
    return _device.max_memory_allocated()


def manual_seed_all(seed: int) -> None:
    for card in range(device_count()):
        _device.manual_seed(seed, card)


def get_rng_state(device: Where = "npu") -> torch.Tensor:
    return _device.get_rng_state(_card(device))


def set_rng_state(state: torch.Tensor, device: Where = "npu") -> None:
    _device.set_rng_state(state, _card(device))


def _is_in_bad_fork() -> bool:
    return os.getpid() != _owner


def _card(device: Where) -> int:
    if isinstance(device, int):
        return device
    index = torch.device(device).index
    return current_device() if index is None else index

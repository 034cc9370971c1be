"""What each of the two processes does that test the links between cards; started by ``devices``."""

from __future__ import annotations

import os
import sys

import torch
from torch import distributed

from wav2lip_npu.doctor.devices import COLLECTIVE_DONE, print_line
from wav2lip_npu.runtime.device import Device, disable_torch_npu_autoload
from wav2lip_npu.runtime.distributed import join

CONNECT_SECONDS = 60  # shorter than a training waits: this is a test


def main(kind: str) -> None:
    """Add up the ranks, as gradients are added up in training.

    Raises:
        RuntimeError: the sum is wrong.
    """
    disable_torch_npu_autoload()
    os.environ.setdefault("HCCL_CONNECT_TIMEOUT", str(CONNECT_SECONDS))
    device = Device.open(kind)
    with join(device) as world:
        numbers = torch.full((1024,), float(world.rank + 1), device=device.torch_device)
        distributed.all_reduce(numbers)
        total = sum(range(1, world.size + 1))
        if not bool((numbers == total).all()):
            raise RuntimeError(f"the sum of {world.size} cards is {numbers[0]}, not {total}")
        if world.is_main:
            print_line(COLLECTIVE_DONE)


if __name__ == "__main__":
    main(sys.argv[1])

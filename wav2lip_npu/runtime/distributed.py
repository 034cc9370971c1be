"""The processes of one training run, one per card, started by torchrun."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.threads import limit_threads

PREPARATION_TIMEOUT = timedelta(days=30)  # for which processes wait for one that reads its data
COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # longer than any validation or checkpoint takes

_TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# What gloo, NCCL and HCCL say when a process that they wait for has ended or does not answer.
_LOST_PEER = re.compile(
    r"closed by (remote )?peer|reset by peer|broken pipe|connection refused|recvBytes failed|"
    r"remote process exit|communicator was aborted|watchdog caught collective operation timeout|"
    r"getting socket times out|\bEI000[26]\b",
    re.IGNORECASE,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run, and which one this is; the default is a single process.

    All processes must call every method, in the same order.
    """

    rank: int = 0
    size: int = 1
    patient_group: distributed.ProcessGroup | None = None  # of all, see ``wait_for_all``

    @property
    def is_main(self) -> bool:
        """Whether this is the process that logs and writes files."""
        return self.rank == 0

    def wrap_ddp(self, network: nn.Module) -> nn.Module:
        """The network to call in training, so that gradients are averaged over all processes.

        Its parameters become those of rank 0 now. Buffers (running statistics) are each process's
        own in training, which does not read them; see ``broadcast_buffers``.
        """
        if self.size == 1:
            return network
        names = inspect.signature(DistributedDataParallel).parameters
        newest = "forward_sync_buffers"  # as torch 2.13 calls it
        options: dict[str, Any] = {newest if newest in names else "broadcast_buffers": False}
        return DistributedDataParallel(network, gradient_as_bucket_view=True, **options)

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Copy the buffers (running statistics) of rank 0 to all processes."""
        if self.size > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, src=0)

    def all_reduce_max(self, value: int) -> int:
        """The largest value of all processes."""
        if self.size == 1:
            return value
        values = torch.tensor(value)
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return int(values)

    def device_max(self, value: torch.Tensor) -> torch.Tensor:
        """The largest value of all processes, without waiting for the device; a scalar there."""
        if self.size > 1:
            distributed.all_reduce(value, distributed.ReduceOp.MAX)
        return value

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.all_reduce_max(0)

    def wait_for_all(self) -> None:
        """Wait until all processes are here, however long one of them prepares its data."""
        if self.size > 1:
            distributed.all_reduce(torch.zeros(()), group=self.patient_group)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block on rank 0 first, so that the other processes find the files it wrote."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean of each value over all processes; all have the same names."""
        if self.size == 1:
            return values
        sums = torch.tensor(list(values.values()), dtype=torch.float64)
        distributed.all_reduce(sums)
        return dict(zip(values, (sums / self.size).tolist(), strict=True))


SINGLE_PROCESS = World()


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether torch raised this error because another process has ended."""
    return _LOST_PEER.search(str(error)) is not None


@contextmanager
def join(device: Device, *, timeout: timedelta = COLLECTIVE_TIMEOUT) -> Iterator[World]:
    """Connect to the other processes of this run, if torchrun has started several.

    Args:
        device: where this process computes; it determines the backend.
        timeout: of collective operations.

    Raises:
        UserError: another process has ended early.
    """
    is_torchrun = all(map(os.environ.get, _TORCHRUN_VARIABLES))
    size = int(os.environ["WORLD_SIZE"]) if is_torchrun else 1
    if size == 1:
        yield SINGLE_PROCESS
        return
    rank = int(os.environ["RANK"])
    if rank != 0:
        logging.getLogger("wav2lip_npu").setLevel(logging.WARNING)
    limit_threads()
    try:
        distributed.init_process_group(device.backend, timeout=timeout)
        patient = distributed.new_group(timeout=PREPARATION_TIMEOUT, backend="gloo")
        yield World(rank=rank, size=size, patient_group=patient)
    except RuntimeError as error:
        if is_lost_peer(error):
            raise UserError(
                "another process of this run has ended; see its error message"
            ) from error
        raise
    finally:
        _leave()


def _leave() -> None:
    """Close the connections; of those to a process that has ended, the error is known."""
    if not distributed.is_initialized():
        return
    try:
        distributed.destroy_process_group()
    except RuntimeError as error:  # from HCCL, which first waits for its card
        if not is_lost_peer(error):
            raise

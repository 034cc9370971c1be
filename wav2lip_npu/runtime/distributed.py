"""Processes that work together, one on each card, as torchrun starts them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import Device, limit_threads

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_PEER_IS_GONE = r"closed by peer|reset by peer|Broken pipe|Connection refused|recvBytes failed"

COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # longer than any evaluation or saving

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run, and which of them this one is; a process alone is a world too.

    Every method must be called by all processes, in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes for all."""
        return self.rank == 0

    @property
    def hide_progress(self) -> bool | None:
        """What tqdm's ``disable`` wants: only the first has a bar, and none without a terminal."""
        return None if self.is_main else True

    def wrap_ddp(self, network: nn.Module) -> nn.Module:
        """The network to call in training: each process's gradient is then the mean over all.

        Parameters, and before each call the buffers, become those of the first process.
        """
        return network if self.size == 1 else DistributedDataParallel(network)

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Give all processes the first one's running statistics."""
        if self.size > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, src=0)

    def all_reduce_max(self, value: int) -> int:
        """The highest of the processes' values."""
        if self.size == 1:
            return value
        values = torch.tensor(value)
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return int(values)

    def barrier(self) -> None:
        """Go on when the last process has come here."""
        self.all_reduce_max(0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the first process through before the others, which find what it has made."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean over the processes of each value, which all of them have."""
        if self.size == 1:
            return values
        sums = torch.tensor(list(values.values()), dtype=torch.float64)
        distributed.all_reduce(sums)
        return dict(zip(values, (sums / self.size).tolist(), strict=True))


SINGLE_PROCESS = World()


def follow_parent() -> None:
    """In a process that works for another: leave signals to that one, and end when it ends.

    Signals to the group are for the parent to answer. One to the process itself still ends it,
    which is how Python clears away what is left at exit.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether torch says by this that another process has ended."""
    return re.search(_PEER_IS_GONE, str(error)) is not None


@contextmanager
def join(device: Device, *, timeout: timedelta = COLLECTIVE_TIMEOUT) -> Iterator[World]:
    """Meet the other processes of this run, if torchrun has started several.

    Args:
        device: where this process computes; decides how the processes exchange gradients.
        timeout: how long they wait for each other.

    Raises:
        UserError: another process ended before its time.
    """
    size = int(os.environ["WORLD_SIZE"]) if all(map(os.environ.get, _VARIABLES)) else 1
    if size == 1:
        yield SINGLE_PROCESS
        return
    world = World(rank=int(os.environ["RANK"]), size=size)
    if not world.is_main:
        logging.getLogger("wav2lip_npu").setLevel(logging.WARNING)
    limit_threads()
    try:
        distributed.init_process_group(device.backend, timeout=timeout)
        yield world
    except RuntimeError as error:
        if is_lost_peer(error):
            raise UserError("another process of this run has ended, see what it says") from error
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()

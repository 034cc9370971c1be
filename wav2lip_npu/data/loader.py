"""Batches from worker processes, and what to say when one fails."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader

from wav2lip_npu.data.batches import Batch
from wav2lip_npu.data.dataset import WindowDataset
from wav2lip_npu.data.sampler import StridedSampler
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.workers import end_with_parent

# What a loader raises. The last two: a process was killed whose batch was waiting to be fetched.
LOADING_FAILURES = (UserError, RuntimeError, ConnectionError, EOFError)

T = TypeVar("T")


def open_loader(
    dataset: WindowDataset,
    indices: StridedSampler,
    *,
    batch_size: int,
    workers: int,
    pin_options: dict[str, Any],
) -> DataLoader[Batch]:
    """A loader of whole batches only: some devices compile for every new shape.

    Args:
        dataset: makes a batch of indices.
        indices: of the samples of this process.
        batch_size: samples per batch.
        workers: processes that load; 0 loads in this one.
        pin_options: see ``Device.pin_options``; none if batches come from the device's memory.

    Raises:
        UserError: no loading process can be started.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=indices,
        num_workers=workers,
        collate_fn=_unchanged,
        drop_last=True,
        generator=torch.Generator(),  # its seeds would change torch's global random numbers
        worker_init_fn=_start_worker,
        multiprocessing_context=_worker_context() if workers else None,
        **pin_options,
    )


def _unchanged(batch: T) -> T:
    """``WindowDataset.__getitems__`` gives whole batches."""
    return batch


def _start_worker(number: int) -> None:
    end_with_parent()
    cv2.setNumThreads(1)


def _worker_context() -> BaseContext:
    """How loader processes are started: forked from a process that has done nothing yet.

    A fork of this one would inherit an open accelerator, and the locks of threads (OpenCV's, the
    decoders') that do not exist in it, and wait for them forever.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([WindowDataset.__module__])  # imports torch once, not in each
    try:
        context.Lock()  # as each queue of a loader has
    except OSError as error:
        raise UserError(
            f"shared memory cannot be used ({reason(error)}), which processes that load batches "
            "need: make /dev/shm writable, or train with --num_workers 0"
        ) from error
    return context


def loading_error(failure: Exception | None) -> UserError:
    """What to tell a user when batches cannot be loaded.

    Args:
        failure: one of ``LOADING_FAILURES``, or None: another process failed.
    """
    if failure is None:
        return UserError("stopped, as another process of this run failed")
    if isinstance(failure, UserError):
        # From a worker it comes with a traceback above the message.
        message = str(failure).strip().splitlines()[-1]
        return UserError(message.rpartition("UserError: ")[2])
    is_killed = isinstance(failure, (ConnectionError, EOFError))
    cause = "a loader process exited unexpectedly" if is_killed else failure
    return UserError(f"loading failed ({cause}); with less memory: --num_workers 0")

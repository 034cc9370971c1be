"""Batches from worker processes, and what to say when one fails."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from wav2lip_npu.data.sampler import Batch, Consecutive, WindowDataset
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import distributed


def load(
    dataset: WindowDataset, numbers: Consecutive, *, batch_size: int, workers: int, pin: bool
) -> DataLoader[Batch]:
    """Full batches only: some devices compile anew for every shape."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        drop_last=True,
        generator=torch.Generator(),  # leaves the global one, which a resumed run gets back
        worker_init_fn=_start_worker,
        multiprocessing_context=_clean_processes() if workers else None,
    )


def _as_it_is(batch: Any) -> Any:
    """A batch is loaded as a whole."""
    return batch


def _start_worker(number: int) -> None:
    distributed.end_with_parent()
    cv2.setNumThreads(1)


def _clean_processes() -> BaseContext:
    """How loader processes are started: forked from a process that has done nothing yet.

    A fork of this one would inherit an open accelerator, and the locks of threads (OpenCV's, the
    decoders') that do not exist in it, which it then waits for.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wav2lip_npu.data.sampler"])  # imports torch once, not in each
    return context


def one_line(failure: UserError | RuntimeError | None) -> UserError:
    """What to tell a user when batches cannot be loaded; None: by another process."""
    if failure is None:
        return UserError("stopped, as another process of this run failed")
    if not isinstance(failure, UserError):
        return UserError(f"loading failed ({failure}); with less memory: --num_workers 0")
    # From a worker it comes with a traceback above the message.
    message = str(failure).strip().splitlines()[-1]
    return UserError(message.rpartition("UserError: ")[2])

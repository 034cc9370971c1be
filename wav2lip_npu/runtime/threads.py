"""Processor cores, and how many threads of this process use them."""

from __future__ import annotations

import os


def local_processes() -> int:
    """How many processes of this run are on this machine; torchrun sets it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def process_share() -> tuple[int, int]:
    """Which of a run's processes this is, and how many there are; torchrun sets both."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def usable_cores() -> int:
    """Processor cores that this process may use; a container may have fewer than its machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def share_of_cores(processes: int = 1) -> int:
    """Cores per process, if this process and its local peers run ``processes`` workers each."""
    return max(1, usable_cores() // (processes * local_processes()))


def limit_threads(processes: int = 1) -> None:
    """Let torch and OpenCV use this process's share of the cores, see ``share_of_cores``."""
    import cv2
    import torch

    share = share_of_cores(processes)
    torch.set_num_threads(share)
    cv2.setNumThreads(share)


def set_passive_waiting() -> None:
    """Let torch's CPU threads sleep, not spin, while they wait. Call it before torch is imported.

    In ``infer`` other stages work beside the network, and spinning threads would take their time.
    Training has the cores to itself and would be a tenth slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

"""Children of one process that has imported everything: a command starts in milliseconds.

The process that forks must have no other threads: a child would inherit their locks, but not them.
"""

from __future__ import annotations

import atexit
import ctypes
import io
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Linux's capabilities that let root read and write what permissions forbid.
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER = 1, 2, 3
PR_CAPBSET_DROP = 24
CAPABILITY_VERSION = 0x20080522
POLL_SECONDS = 0.01


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a child may use."""

    seconds: float = 60.0
    address_bytes: int = 8 << 30  # above what the parent has
    file_bytes: int = 1 << 30  # of a file that it writes


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a child ended."""

    code: int  # its exit code, or minus the signal's number
    seconds: float
    timed_out: bool
    peak_bytes: int  # of resident memory, children included


def prepare() -> None:
    """Import what the commands import, with one thread."""
    import cv2
    import pytest
    import torch
    import torch._dynamo
    import torch.utils.tensorboard
    from helpers import thin_networks
    from matplotlib.figure import Figure

    import wav2lip_npu.cli
    import wav2lip_npu.doctor.command
    import wav2lip_npu.export
    import wav2lip_npu.inference.command
    import wav2lip_npu.preprocessing.command
    import wav2lip_npu.preprocessing.filelists
    import wav2lip_npu.training.trainer  # noqa: F401

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    Figure().add_subplot().figure.savefig(io.BytesIO())  # reads the fonts
    thin_networks(pytest.MonkeyPatch())
    threads = len(list(Path("/proc/self/task").iterdir())) if Path("/proc").is_dir() else 1
    assert threads == 1, f"{threads} threads: a fork is not safe"


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder that this process removes; a ``TemporaryDirectory`` goes when a child exits."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(
    work: Callable[[], int],
    folder: Path,
    limits: Limits,
    *,
    name: str = "std",
    confine: bool = True,
) -> Ending:
    """Do ``work`` in a child, in ``folder``; its output goes to ``<name>out`` and ``<name>err``.

    Args:
        work: returns the exit code.
        folder: the child's current folder; the files of its output are beside it.
        limits: after which it is ended.
        name: of the files.
        confine: whether permissions count for root, too.
    """
    started = time.monotonic()
    pid = fork(work, folder, limits, name=name, confine=confine)
    return wait(pid, started, limits)


def fork(
    work: Callable[[], int],
    folder: Path,
    limits: Limits | None,
    *,
    name: str = "std",
    confine: bool = True,
) -> int:
    """Start ``work`` as ``run`` does; returns the child's number."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            _become(folder, limits, name, confine)
            code = _exit_code(work)
        except BaseException:
            traceback.print_exc()
            code = 1
        _leave(code)
    return pid


def wait(pid: int, started: float, limits: Limits) -> Ending:
    """Wait until a child ends, or end it and all its process group."""
    timed_out = False
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if not timed_out and time.monotonic() - started > limits.seconds:
            timed_out = True
            os.killpg(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    return Ending(
        code=os.waitstatus_to_exitcode(status),
        seconds=time.monotonic() - started,
        timed_out=timed_out,
        peak_bytes=usage.ru_maxrss * 1024,
    )


def _become(folder: Path, limits: Limits | None, name: str, confine: bool) -> None:
    os.setsid()
    os.chdir(folder)
    for number, stream in ((0, None), (1, "out"), (2, "err")):
        path = os.devnull if stream is None else folder.parent / f"{name}{stream}"
        flags = os.O_RDONLY if stream is None else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        descriptor = os.open(path, flags, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stderr.reconfigure(errors="backslashreplace", line_buffering=True)
    warnings = logging.FileHandler(folder.parent / f"{name}warnings", delay=True, errors="replace")
    warnings.setLevel(logging.WARNING)
    logging.getLogger("wav2lip_npu").addHandler(warnings)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits is not None:
        _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
        if address := _address_bytes():
            _limit(resource.RLIMIT_AS, address + limits.address_bytes)
    if confine and os.geteuid() == 0:
        drop_privileges()


def _limit(kind: int, value: int) -> None:
    """Set the soft limit: children may have another."""
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def _address_bytes() -> int:
    """The address space of this process; 0 where that cannot be told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def drop_privileges() -> None:
    """Let permissions count for root as for its files' owner. It stays the same user."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: low words, high words
    if libc.capget(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        for word in range(3):
            data[word] &= ~(1 << capability)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _exit_code(work: Callable[[], int]) -> int:
    """What Python would exit with."""
    try:
        return work()
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1


def _leave(code: int) -> None:
    """Exit as Python does: wait for threads, then the functions of ``atexit``."""
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def leave_out_what_is_slow(*, curves: bool = False) -> None:
    """Spare seconds in this process, for what is not judged here.

    Args:
        curves: whether a training draws its curves.
    """
    from wav2lip_npu.doctor import devices
    from wav2lip_npu.training import trainer

    get_context = multiprocessing.get_context
    # Worker processes that are spawned import everything again.
    multiprocessing.get_context = lambda method=None: get_context("fork")
    # The doctor tries devices in processes of their own.
    devices.examine = lambda machine, asked: devices.DeviceReport(used="cpu", findings=[])
    if not curves:
        trainer.plot_curves = lambda metrics: None


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()

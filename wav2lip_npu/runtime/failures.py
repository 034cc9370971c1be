"""Exceptions of any kind: one line for a user, and whether a second try makes sense."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Iterator

from wav2lip_npu.errors import UserError

MAX_REASON_CHARACTERS = 300
# What torch, its backends, OpenCV, FFmpeg and the C library say.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can.t allocate memory|cannot allocate|insufficient memory|bad_alloc|"
    r"error code is 207001",
    re.IGNORECASE,
)
# What helps where the message has no advice, by CANN's and HCCL's error codes and texts.
_REMEDIES = (
    (
        r"aclnn\w+ not in ",
        "CANN is older than this torch_npu wants: install versions of one line of the table in "
        "docs/ascend.md",
    ),
    (
        r"binary_info_config|opp_kernel|does not has any binary|Parse dynamic kernel config",
        "CANN has no kernels for this chip: install the package of kernels (ops) of CANN's "
        "version; wav2lip-npu doctor names it",
    ),
    (r"EZ1001", "this chip has no kernel for these types: try --precision fp16, or fp32"),
    (
        r"EI0002",
        "a process of the run did not take part in time: its own message says why; more time: "
        "export HCCL_EXEC_TIMEOUT=3600",
    ),
    (r"EI0004", "HCCL's rank table is wrong; torchrun needs none: unset RANK_TABLE_FILE"),
    (
        r"EI0006",
        "a process of the run did not connect in time: its own message says why; more time: "
        "export HCCL_CONNECT_TIMEOUT=600; between machines, test the links with hccn_tool",
    ),
    (
        r"EJ0003",
        "HCCL's address or port is in use or not this machine's: end other runs on these cards, "
        "check HCCL_IF_IP, or export HCCL_IF_BASE_PORT=61000",
    ),
    (
        r"error code(?: is|:) ?107002",
        "no card is set in this thread; run it again, and report it with --debug if it stays",
    ),
    (
        r"error code(?: is|:) ?507\d{3}",
        "the card failed while it computed: see npu-smi info -t health -i N and the newest file in "
        "~/ascend/log, try another card; ASCEND_LAUNCH_BLOCKING=1 shows the operator",
    ),
)
# The same path gives the same error again.
_LASTING_ERRORS = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


def reason(error: BaseException) -> str:
    """What went wrong, in one line; ``error`` may be of any kind."""
    if isinstance(error, UserError):
        text = str(error)
    elif is_out_of_memory(error):
        text = "out of memory"
    elif isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        text = f"{where}{error.strerror}"
    else:
        text = f"{type(error).__name__}: {error}".rstrip(": ")
    line = " ".join(text.split())
    return line if len(line) <= MAX_REASON_CHARACTERS else f"{line[:MAX_REASON_CHARACTERS]} …"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left, of the machine or of a card."""
    return any(
        isinstance(cause, MemoryError)
        or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM)
        or (not isinstance(cause, UserError) and _OUT_OF_MEMORY.search(str(cause)) is not None)
        for cause in _causes(error)
    )


def remedy(error: BaseException | str) -> str | None:
    """What to do about an error of an accelerator's software; None if that is not known."""
    text = str(error)
    return next((advice for pattern, advice in _REMEDIES if re.search(pattern, text)), None)


def is_disk_full(error: BaseException) -> bool:
    """Whether there was no space left on a disk, or in the user's share of it."""
    return any(
        isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        for cause in _causes(error)
    )


def may_pass(error: BaseException) -> bool:
    """Whether a second try makes sense: reading, writing or memory failed."""
    return is_out_of_memory(error) or any(
        isinstance(cause, OSError) and not isinstance(cause, _LASTING_ERRORS)
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def describe_exit(code: int | None) -> str:
    """How a process ended: ``multiprocessing``'s exit code in words."""
    if code is None or code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    hint = ", possibly out of memory" if name == "SIGKILL" else ""
    return f"was ended by signal {name}{hint}"

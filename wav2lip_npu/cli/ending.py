"""How a run that fails ends: its last line, and its exit code."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from dataclasses import fields

from wav2lip_npu.console import logs
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import failures

# Exit codes; a shell has 130 for Ctrl-C.
FAULT_CODE, USER_ERROR_CODE, INTERRUPTED_CODE = 1, 2, 130


def explain(error: Exception, config: type) -> tuple[int, str]:
    """The exit code for an exception, and a line about it."""
    if isinstance(error, UserError):
        return USER_ERROR_CODE, str(error)
    if failures.is_out_of_memory(error):
        batches = [item.name for item in fields(config) if item.name.endswith("batch_size")]
        advice = f"; with smaller batches less is needed (--{', --'.join(batches)})"
        return USER_ERROR_CODE, failures.reason(error) + (advice if batches else "")
    if isinstance(error, OSError):
        return USER_ERROR_CODE, failures.reason(error)
    remedy = failures.remedy(error)
    if remedy is not None:
        return USER_ERROR_CODE, f"{failures.reason(error)}; {remedy}"
    return FAULT_CODE, (
        f"unexpected error ({failures.reason(error)}); this is a fault of wav2lip-npu; "
        "--debug shows the traceback"
    )


def end(prog: str, text: str, code: int) -> int:
    """Print the last line of a run that fails, whatever it names; the exit code is returned."""
    line = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    logs.note(line, logging.ERROR)
    with suppress(OSError):  # nobody reads it
        print(f"{prog}: {line}", file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # Python would try again when it ends, and fail with a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code

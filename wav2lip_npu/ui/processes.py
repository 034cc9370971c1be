"""Processes of this program: started, waited for, and ended with those that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from wav2lip_npu.errors import UserError

ERROR_PREFIX = "wav2lip-npu: error: "


def start(words: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start ``python -m`` with these words, in a group of processes of its own.

    Args:
        words: module and arguments.
        options: of ``Popen``.
    """
    if os.name == "posix":
        options["start_new_session"] = True
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        **options,
    )


def end_process(process: subprocess.Popen[str], *, kill: bool) -> None:
    """End a process and those that it started; what is over stays as it is."""
    if process.poll() is not None:
        return
    with contextlib.suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL if kill else signal.SIGTERM)
        else:
            process.kill() if kill else process.terminate()


class Processes:
    """Short ones, which are waited for. Safe to use from several threads."""

    def __init__(self) -> None:
        """None runs yet."""
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False
        self._lock = threading.Lock()

    def run(self, words: Sequence[str], seconds: float) -> str:
        """Run ``python -m`` with these words to its end; what it printed is returned.

        Raises:
            UserError: what it says is wrong, or it did not end within so many seconds.
        """
        with self._lock:
            if self._closed:
                raise UserError("the page was closed")
            process = start(words, stderr=subprocess.PIPE)
            self._running.add(process)
        try:
            printed, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"did not end within {seconds} s: the machine is busy") from error
        finally:
            end_process(process, kill=True)
            process.wait()
            with self._lock:
                self._running.discard(process)
        if process.returncode:
            last = (errors.splitlines() or ["the process crashed"])[-1]
            raise UserError(last.removeprefix(ERROR_PREFIX))
        return printed

    def close(self) -> None:
        """End all that run; no others are started."""
        with self._lock:
            self._closed = True
            running = [*self._running]
        for process in running:
            end_process(process, kill=True)
            process.wait()

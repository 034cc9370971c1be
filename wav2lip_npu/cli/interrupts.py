"""Ctrl-C and SIGTERM: how they end a command."""

from __future__ import annotations

import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wav2lip_npu.cli.ending import INTERRUPTED_CODE, end

RAISE_AGAIN_SECONDS = 0.02  # after which no destructor runs any more
EXIT_SECONDS = 1.5  # from Ctrl-C or SIGTERM to the end of the process


@contextmanager
def interrupts(prog: str) -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt: partial files are removed, results are saved.

    Threads that compute on for longer than ``EXIT_SECONDS`` are not waited for.

    Yields:
        An event that is set by then.
    """
    interrupted = threading.Event()

    def end_process() -> None:
        os._exit(end(prog, "interrupted", INTERRUPTED_CODE))

    watchdog = threading.Timer(EXIT_SECONDS, end_process)
    watchdog.daemon = True
    timers = [watchdog]

    def interrupt(number: int, frame: types.FrameType | None) -> None:
        if interrupted.is_set():  # cleaning up already
            return
        interrupted.set()
        if not watchdog.is_alive():
            watchdog.start()
        raise KeyboardInterrupt

    def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
        """A destructor was running, out of which nothing can be raised: a moment later."""
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            former_hook(unraisable)
            return
        interrupted.clear()
        timers.append(threading.Timer(RAISE_AGAIN_SECONDS, signal.raise_signal, [signal.SIGINT]))
        timers[-1].start()

    def print_others(kind: type[BaseException], *error: Any) -> None:
        """C code prints what it cannot hand on: NumPy does so where another module imports it."""
        if not issubclass(kind, KeyboardInterrupt):
            former_print(kind, *error)

    if threading.current_thread() is not threading.main_thread():  # Python allows no others
        yield interrupted
        return
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    former = {number: signal.signal(number, interrupt) for number in numbers}
    former_hook, sys.unraisablehook = sys.unraisablehook, raise_again
    former_print, sys.excepthook = sys.excepthook, print_others
    try:
        yield interrupted
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook, sys.excepthook = former_hook, former_print
        for number, handler in former.items():
            signal.signal(number, handler)

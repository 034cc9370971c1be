"""Ctrl-C and SIGTERM: they ask a training run to stop after the current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C or SIGTERM sets; a second signal stops the process at once.

    The handler only sets the event: logging inside a signal handler can fail. The loop that reads
    the event logs that it stops.
    """
    requested = threading.Event()
    former_handlers: dict[int, Any] = {}

    def restore_handlers() -> None:
        while former_handlers:
            signal.signal(*former_handlers.popitem())

    def request_stop(number: int, frame: FrameType | None) -> None:
        requested.set()
        restore_handlers()

    if threading.current_thread() is threading.main_thread():  # Python allows no others
        for number in (signal.SIGINT, signal.SIGTERM):
            former_handlers[number] = signal.signal(number, request_stop)
    try:
        yield requested
    finally:
        restore_handlers()

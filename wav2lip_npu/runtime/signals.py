"""Ctrl-C and SIGTERM, which ask a training to end at its next step."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, for the loop to see; a second one stops at once."""
    requested = threading.Event()
    former: dict[int, Any] = {}

    def give_back() -> None:
        while former:
            signal.signal(*former.popitem())

    def note(number: int, frame: FrameType | None) -> None:
        requested.set()
        give_back()
        log.info("stopping after this step; once more stops at once, unsaved")

    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows none
        for number in (signal.SIGINT, signal.SIGTERM):
            former[number] = signal.signal(number, note)
    try:
        yield requested
    finally:
        give_back()

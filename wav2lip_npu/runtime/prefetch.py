"""Stages of a stream side by side: each runs in its own thread, a few items ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_STOP_CHECK_SECONDS = 0.1  # a thread that waits for space checks this often whether to stop


def prefetch(items: Iterator[Item], count: int) -> Generator[Item, None, None]:
    """Yield the same items; a thread produces them, up to ``count`` ahead.

    An error of the thread is raised here, after the items before it. When this generator is closed,
    the thread finishes its current item and closes ``items`` if that is a generator too. So closing
    the last stage of a chain closes all of them.
    """
    results: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(count)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None = None) -> None:
        while not stopped.is_set():
            try:
                return results.put((item, error), timeout=_STOP_CHECK_SECONDS)
            except queue.Full:
                continue

    def produce() -> None:
        end: BaseException = StopIteration()
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    break
            if isinstance(items, Generator):
                items.close()
        except BaseException as error:
            end = error
        put(None, end)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while True:
            item, error = results.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()

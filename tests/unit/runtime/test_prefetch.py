"""Work in a thread beside, a few items ahead."""

import threading
import time

import pytest

from wav2lip_npu.runtime.prefetch import prefetch


def test_all_items_come_and_errors_are_passed_on() -> None:
    assert list(prefetch(iter(range(100)), 3)) == list(range(100))

    def failing():
        yield 1
        raise KeyError("here")

    items = prefetch(failing(), 3)
    assert next(items) == 1
    with pytest.raises(KeyError, match="here"):
        next(items)


def test_it_stays_within_bounds_and_stops() -> None:
    made = []

    def slow():
        for n in range(1000):
            made.append(n)
            yield n

    before = threading.active_count()
    items = prefetch(slow(), 3)
    next(items)
    time.sleep(0.3)
    assert len(made) <= 6
    items.close()
    assert threading.active_count() == before

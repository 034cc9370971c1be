"""Batches that are halved when memory is short."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from wav2lip_npu.runtime.batching import ShrinkingBatches


class Memory:
    """Doubles numbers, of which only so many have room at a time."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.asked: list[int] = []

    def double(self, numbers: Sequence[int]) -> list[int]:
        self.asked.append(len(numbers))
        if len(numbers) > self.room:
            raise RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB")
        return [2 * number for number in numbers]


def test_batches_are_halved_until_they_fit_and_stay_so(caplog: pytest.LogCaptureFixture) -> None:
    memory, batches = Memory(room=5), ShrinkingBatches("frames", "--batch_size")
    with caplog.at_level(logging.WARNING):
        answers = batches.run(memory.double, range(30))
    assert [number for part in answers for number in part] == [2 * n for n in range(30)]
    assert memory.asked == [30, 15, 7, *[3] * 10]
    assert [record.getMessage() for record in caplog.records] == [
        f"out of memory with {n} frames at a time; going on with {n // 2} "
        "(--batch_size sets their number)"
        for n in (30, 15, 7)
    ]
    memory.asked.clear()
    batches.run(memory.double, range(7))
    assert memory.asked == [3, 3, 1]
    assert batches.run(memory.double, []) == []


def test_one_that_does_not_fit_and_other_errors_are_raised() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        ShrinkingBatches("frames", "--batch_size").run(Memory(room=0).double, range(4))

    def fail(numbers: Sequence[int]) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        ShrinkingBatches("frames", "--batch_size").run(fail, range(4))

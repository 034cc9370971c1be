"""Batches that are halved when a device's memory is not enough for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from wav2lip_npu.runtime.failures import is_out_of_memory

Item = TypeVar("Item")
Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


class ShrinkingBatches:
    """Gives items to a function, at most so many at a time as the memory was enough for."""

    def __init__(self, what: str, option: str) -> None:
        """Begin without a limit.

        Args:
            what: the items, for the log, such as "frames".
            option: by which a user makes the batches smaller.
        """
        self._what, self._option = what, option
        self._limit: int | None = None

    def run(
        self, function: Callable[[Sequence[Item]], Answer], items: Sequence[Item]
    ) -> list[Answer]:
        """The function's answers to the items in their order, one for each batch it was given.

        Raises:
            Exception: what the function raises, out of memory with a single item included.
        """
        answers: list[Answer] = []
        first = 0
        while first < len(items):
            batch = items[first : first + (self._limit or len(items))]
            try:
                answers.append(function(batch))
            except Exception as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
                self._limit = len(batch) // 2
                log.warning(
                    "out of memory with %d %s at a time; going on with %d (%s sets their number)",
                    len(batch), self._what, self._limit, self._option,
                )  # fmt: skip
            else:
                first += len(batch)
        return answers

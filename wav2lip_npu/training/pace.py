"""How fast a training goes, and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """The time since the last line of the log, without what the training stood still for."""

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, step: int) -> None:
        """A new count begins at this step."""
        self._since, self.step = time.monotonic(), step
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While the training waits for data."""
        started = time.monotonic()
        yield
        self._waited += time.monotonic() - started

    @contextmanager
    def standstill(self) -> Iterator[None]:
        """While something else is done, as an evaluation, which does not count."""
        started = time.monotonic()
        yield
        self._since += time.monotonic() - started

    def take(self, step: int, *, items: int, work: float, peak: float) -> dict[str, float]:
        """Figures of the steps since ``begin``, which begins anew.

        Args:
            step: the current one; all that was asked of the device is done.
            items: of a step.
            work: floating-point operations that an item takes, forward and backward.
            peak: operations a second of all devices together, see ``Device.measured_matmul_flops``.

        Returns:
            "items_per_second"; "data_wait", the share of the time in which the host waited for
            data (an upper limit: the device may have had work left); "mfu", the share of
            the device's rate of matrix multiplication that the networks' operations come to.
        """
        seconds, steps = time.monotonic() - self._since, step - self.step
        rate = steps * items / seconds
        shares = {"data_wait": self._waited / seconds, "mfu": rate * work / peak}
        self.begin(step)
        return {"items_per_second": rate, **shares}

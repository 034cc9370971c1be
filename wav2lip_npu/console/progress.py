"""How far a command's work has come: a bar on a terminal, elsewhere a line each 30 seconds.

Other programs read the lines: ``parse_line`` is the inverse of ``format_line``.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from wav2lip_npu.console import logs
from wav2lip_npu.errors import UserError

SECONDS_VARIABLE = "WAV2LIP_NPU_PROGRESS_SECONDS"  # of the environment
DEFAULT_SECONDS = 30.0  # between lines

_LINE = re.compile(
    r"(?P<label>.+): (?P<done>\d+)(?: of (?P<total>\d+))? (?P<unit>\S+)(?: \(\d+ %\))?, "
    r"(?P<rate>\d+(?:\.\d+)?) (?P=unit)/s(?:, (?P<eta>\?|\d+(?::\d\d){1,2}) left)?"
)

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ProgressLine:
    """What a line of progress says."""

    label: str  # what is done
    done: int
    total: int | None  # None: not known
    unit: str  # in the plural
    rate: float  # units per second
    eta_seconds: int | None  # until the end; None: not known


def format_line(line: ProgressLine) -> str:
    """Progress as one line, as in ``infer: 120 of 500 frames (24 %), 12.3 frames/s, 0:31 left``."""
    decimals = 1 if line.rate >= 10 else 2 if line.rate >= 1 else 3
    speed = f"{line.rate:.{decimals}f} {line.unit}/s"
    if line.total is None:
        return f"{line.label}: {line.done} {line.unit}, {speed}"
    share = 100 if line.total == 0 else min(100, 100 * line.done // line.total)
    left = "?" if line.eta_seconds is None else _clock(line.eta_seconds)
    return (
        f"{line.label}: {line.done} of {line.total} {line.unit} ({share} %), {speed}, {left} left"
    )


def parse_line(text: str) -> ProgressLine | None:
    """What a line of progress says; None if the text is another line."""
    match = _LINE.fullmatch(text.strip())
    if match is None or (match["total"] is None) != (match["eta"] is None):
        return None
    eta = None
    if match["eta"] not in (None, "?"):
        eta = 0
        for part in match["eta"].split(":"):
            eta = 60 * eta + int(part)
    return ProgressLine(
        label=match["label"],
        done=int(match["done"]),
        total=None if match["total"] is None else int(match["total"]),
        unit=match["unit"],
        rate=float(match["rate"]),
        eta_seconds=eta,
    )


def _clock(seconds: int) -> str:
    """Seconds as 0:31, or 1:02:03."""
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def interval_seconds() -> float:
    """The seconds between lines, by the environment.

    Raises:
        UserError: it has no such number.
    """
    text = os.environ.get(SECONDS_VARIABLE, "")
    if not text:
        return DEFAULT_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise UserError(f"{SECONDS_VARIABLE}={text}: must be a number of seconds above 0")
    return seconds


class Progress:
    """Shows how far some work has come, while its block runs; ``--quiet`` shows nothing."""

    def __init__(
        self,
        label: str,
        unit: str,
        total: int | None,
        *,
        initial: int = 0,
        shown: bool = True,
    ) -> None:
        """Show nothing yet.

        Args:
            label: what is done.
            unit: what is counted, in the singular.
            total: how many there are; None: that is not known.
            initial: how many are done already.
            shown: False in processes whose work another one counts.
        """
        self._label, self._unit, self._total = label, unit, total
        self._initial = self.done = initial
        self._shown = shown and total != 0
        self._seconds = interval_seconds()
        self._started = time.monotonic()
        self._bar: Any = None
        self._ended = threading.Event()
        self._writer: threading.Thread | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
        if self._shown and sys.stderr.isatty() and not logs.current_settings().quiet:
            self._open_bar()
        elif self._shown and log.isEnabledFor(logging.INFO):
            self._writer = threading.Thread(target=self._write_lines, daemon=True)
            self._writer.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._ended.set()
            self._writer.join()
            log.info(format_line(self.line()))
        self._stack.close()

    def _open_bar(self) -> None:
        from tqdm import tqdm
        from tqdm.contrib.logging import logging_redirect_tqdm

        # tqdm's own lock is one between processes, which a process that is ended leaves behind.
        tqdm.set_lock(threading.RLock())
        self._stack.enter_context(logging_redirect_tqdm())  # messages do not break the bar
        self._bar = self._stack.enter_context(
            tqdm(desc=self._label, total=self._total, initial=self._initial, unit=self._unit)
        )

    def update(self, count: int = 1) -> None:
        """Count so many as done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)

    def line(self) -> ProgressLine:
        """How far the work is now."""
        seconds = time.monotonic() - self._started
        rate = (self.done - self._initial) / seconds if seconds > 0 else 0.0
        eta = None
        if self._total is not None and (rate > 0 or self.done >= self._total):
            eta = round(max(0, self._total - self.done) / rate) if rate > 0 else 0
        return ProgressLine(
            label=self._label,
            done=self.done,
            total=self._total,
            unit=f"{self._unit}s",
            rate=rate,
            eta_seconds=eta,
        )

    def _write_lines(self) -> None:
        while not self._ended.wait(self._seconds):
            log.info(format_line(self.line()))


def track(items: Iterable[T], label: str, unit: str, total: int) -> Iterator[T]:
    """Give items on, and show how many have been worked on; see ``Progress``."""
    with Progress(label, unit, total) as progress:
        for item in items:
            yield item
            progress.update()

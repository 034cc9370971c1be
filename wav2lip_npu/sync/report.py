"""What was found of each clip: a line of JSON each, a histogram, and a summary in the log."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from wav2lip_npu.alignment.lags import MAX_LAG
from wav2lip_npu.runtime.files import atomic_write, write_text

REPORT = "sync_report.jsonl"
HISTOGRAM = "sync_offsets.png"

# What becomes of a clip.
IN_SYNC = "in sync"
OFF = "off"  # its sound is to be shifted
SHIFTED = "shifted"  # it was, by this run
JUMPS = "jumps"  # the sound is late by different times; no one shift mends it
UNCLEAR = "unclear"  # the sound goes with the face no better than sound that is not the clip's
UNREADABLE = "unreadable"
STATES = (IN_SYNC, OFF, SHIFTED, JUMPS, UNCLEAR, UNREADABLE)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClipSync:
    """A line of the report; a stable format."""

    clip: str
    state: str  # one of those above
    offset: float | None = None  # frames by which the sound comes late; of a shifted clip, before
    confidence: float | None = None
    jumps: list[dict[str, int]] | None = None  # from which frame on the sound is how late
    reason: str | None = None  # why it cannot be read, or not be shifted


def write_report(entries: Sequence[ClipSync], root: Path) -> None:
    """Write the lines, and the histogram of offsets.

    Raises:
        WriteError: a file cannot be written.
    """
    lines = (json.dumps(asdict(entry), ensure_ascii=False) for entry in entries)
    write_text(root / REPORT, "".join(f"{line}\n" for line in lines))
    _plot(entries, root / HISTOGRAM)


def log_summary(entries: Sequence[ClipSync], root: Path) -> None:
    """Log how many clips there are of each state, and where their offsets lie."""
    counts = Counter(entry.state for entry in entries)
    states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    log.info("%d clips: %s", len(entries), states)
    offsets = [e.offset for e in entries if e.state != UNCLEAR and e.offset is not None]
    if offsets:
        low, middle, high = np.percentile(offsets, [5, 50, 95])
        log.info(
            "the sound comes late by %.1f frames (median; of 90 %% of the clips by %.1f to %.1f)",
            middle, low, high,
        )  # fmt: skip
    log.info("report: %s, histogram: %s", root / REPORT, root / HISTOGRAM)


def _plot(entries: Sequence[ClipSync], path: Path) -> None:
    """How many clips have which offset, by state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="frames by which the sound comes late", ylabel="clips")
    edges = np.arange(-MAX_LAG - 0.5, MAX_LAG + 1)
    shown = [
        (state, [e.offset for e in entries if e.state == state and e.offset is not None])
        for state in STATES
    ]
    shown = [(state, offsets) for state, offsets in shown if offsets]
    if shown:
        axes.hist(
            [o for _, o in shown], edges.tolist(), stacked=True, label=[state for state, _ in shown]
        )
        axes.legend()
    axes.grid(alpha=0.3)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)

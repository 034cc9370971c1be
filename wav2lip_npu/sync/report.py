"""What was found of each clip: a line of JSON each, a histogram, and a summary in the log."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wav2lip_npu.alignment.lags import MAX_LAG
from wav2lip_npu.media.charts import new_panels, write_chart
from wav2lip_npu.runtime.files import read_text, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    state: str  # one of STATES
    offset: float | None = None  # frames by which the sound comes late; of a shifted clip, before
    confidence: float | None = None
    jumps: list[dict[str, int]] | None = None  # from which frame on the sound is how late
    reason: str | None = None  # why it cannot be read, or not be shifted


_KEYS = {item.name for item in fields(ClipSync)}


def write_report(entries: Sequence[ClipSync], root: Path) -> None:
    """Write the lines, and the histogram of offsets.

    Raises:
        WriteError: a file cannot be written.
    """
    lines = (json.dumps(asdict(entry), ensure_ascii=False) for entry in entries)
    write_text(root / REPORT, "".join(f"{line}\n" for line in lines))
    write_chart(root / HISTOGRAM, draw_offsets([("", entries)]))


def read_report(path: Path) -> list[ClipSync]:
    """Read the lines of a report; those that are none of a report are left out with a warning.

    Raises:
        UserError: the file cannot be read.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    entries = [entry for line in lines if (entry := _parse(line)) is not None]
    if strange := len(lines) - len(entries):
        log.warning("%s: %d lines are none of a sync report and are left out", path, strange)
    return entries


def _parse(line: str) -> ClipSync | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    offset = values.get("offset")
    is_offset = offset is None or (type(offset) in (int, float) and abs(offset) <= MAX_LAG)
    if type(values.get("clip")) is not str or values.get("state") not in STATES or not is_offset:
        return None
    return ClipSync(**{key: values[key] for key in _KEYS & values.keys()})


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


def draw_offsets(reports: Sequence[tuple[str, Sequence[ClipSync]]]) -> Figure:
    """Draw how many clips have which offset, by state: a panel for each report, with equal axes.

    Args:
        reports: label and lines of each.
    """
    width, height = (8, 4) if len(reports) == 1 else (4.5, 3)
    figure, panels = new_panels(len(reports), width=width, height=height, share_y=True)
    edges = np.arange(-MAX_LAG - 0.5, MAX_LAG + 1)
    for axes, (label, entries) in zip(panels, reports, strict=True):
        axes.set_title(label)
        by_state = [
            [e.offset for e in entries if e.state == state and e.offset is not None]
            for state in STATES
        ]
        shown = [number for number, offsets in enumerate(by_state) if offsets]
        if shown:
            axes.hist(
                [by_state[number] for number in shown],
                edges.tolist(),
                stacked=True,
                color=[f"C{number}" for number in shown],
                label=[f"{STATES[number]}: {len(by_state[number])}" for number in shown],
            )
            axes.legend()
    figure.supxlabel("frames by which the sound comes late", fontsize="medium")
    figure.supylabel("clips", fontsize="medium")
    return figure

"""What was found: evaluation.json, .csv and .md, and the last lines of the log."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wav2lip_npu.evaluation.measure import Measured
from wav2lip_npu.evaluation.metrics import METRICS, Summary, summarize
from wav2lip_npu.runtime.files import write_text

NAME = "evaluation"  # of the files, before the suffix
BYTE_ORDER_MARK = "\ufeff"  # by which Excel knows UTF-8
NOTHING = "–"  # in tables
NO_MEAN = {"mean": None, "low": None, "high": None, "n": 0}
INTERVAL = "95 % confidence interval of the mean over videos (Student's t)"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All results; without dates, so that the same inputs give the same files."""

    version: str
    options: dict[str, Any]
    weights: dict[str, str]  # option → SHA-256 of its file
    detector: str
    videos: list[Measured]
    failed: dict[str, str]  # name → reason
    fid: dict[str, Any]  # value, numbers of faces, reason

    @property
    def means(self) -> dict[str, Summary | None]:
        """Each metric over all videos that have it."""
        return {
            name: summarize([v.values[name] for v in self.videos if v.values[name] is not None])  # type: ignore[misc]
            for name in METRICS
        }


def write_report(found: Evaluation, folder: Path) -> None:
    """Write the three files.

    Raises:
        WriteError: one cannot be written.
    """
    write_text(folder / f"{NAME}.json", _as_json(found))
    write_text(folder / f"{NAME}.csv", BYTE_ORDER_MARK + _as_csv(found))
    write_text(folder / f"{NAME}.md", _as_markdown(found))


def log_summary(found: Evaluation, folder: Path) -> None:
    """Log the means, and what failed."""
    for name, summary in found.means.items():
        if summary is not None:
            log.info("%s: %s", name, _spelled(summary, METRICS[name].digits))
    if found.fid["value"] is not None:
        log.info("fid: %.4f", found.fid["value"])
    for name, reason in found.failed.items():
        log.warning("failed: %s: %s", name, reason)
    log.info(
        "%d videos measured, %d failed; report: %s",
        len(found.videos), len(found.failed), folder / f"{NAME}.md",
    )  # fmt: skip


def _spelled(summary: Summary, digits: int) -> str:
    text = f"{summary.mean:.{digits}f}"
    if summary.low is not None and summary.high is not None:
        text += f" ({summary.low:.{digits}f} to {summary.high:.{digits}f})"
    return f"{text}, n = {summary.n}"


def _as_json(found: Evaluation) -> str:
    content = {
        "version": found.version,
        "options": found.options,
        "weights": found.weights,
        "detector": found.detector,
        "interval": INTERVAL,
        "metrics": {
            name: {"better": METRICS[name].better, **(asdict(summary) if summary else NO_MEAN)}
            for name, summary in found.means.items()
        },
        "fid": found.fid,
        "videos": [asdict(video) for video in found.videos],
        "failed": [{"name": name, "reason": reason} for name, reason in found.failed.items()],
    }
    return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


FACTS = ("name", "source", "reconstruction", "frames", "faces", "tracks")


def _as_csv(found: Evaluation) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*FACTS, *METRICS, "failed", "reasons"])
    for video in found.videos:
        facts, values = asdict(video), video.values
        writer.writerow(
            [*(facts[name] for name in FACTS), *(values[name] for name in METRICS), "",
             "; ".join(_reasons(video.reasons))]
        )  # fmt: skip
    for name, reason in found.failed.items():
        writer.writerow([name, *[""] * (len(FACTS) - 1 + len(METRICS)), reason, ""])
    return text.getvalue()


def _reasons(reasons: Mapping[str, str]) -> list[str]:
    """Reasons, each once, with the metrics that it is of."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [f"{', '.join(of)}: {reason}" for reason, of in names.items()]


def _as_markdown(found: Evaluation) -> str:
    parts = [
        "# Evaluation",
        f"{len(found.videos)} videos measured, {len(found.failed)} failed. Interval: {INTERVAL}.",
        _means_table(found),
        "## Videos",
        _videos_table(found.videos),
    ]
    missing = Counter(line for video in found.videos for line in _reasons(video.reasons))
    if missing or found.fid["reason"]:
        lines = [f"- {line} ({count} videos)" for line, count in missing.items()]
        lines += [f"- fid: {found.fid['reason']}"] if found.fid["reason"] else []
        parts += ["## Left empty", "\n".join(map(_escaped, lines))]
    if found.failed:
        lines = [f"- {name}: {reason}" for name, reason in found.failed.items()]
        parts += ["## Failed", "\n".join(map(_escaped, lines))]
    return "\n\n".join(parts) + "\n"


def _means_table(found: Evaluation) -> str:
    rows = []
    for name, summary in found.means.items():
        metric = METRICS[name]
        cells = [NOTHING, NOTHING, "0"]
        if summary is not None:
            cells = [f"{summary.mean:.{metric.digits}f}", NOTHING, str(summary.n)]
        if summary is not None and summary.low is not None:
            cells[1] = f"{summary.low:.{metric.digits}f} to {summary.high:.{metric.digits}f}"
        rows.append([name, metric.better, *cells])
    if found.fid["value"] is not None:
        faces = f"{found.fid['generated']} and {found.fid['source']} faces"
        rows.append(["fid", "less", f"{found.fid['value']:.4f}", NOTHING, faces])
    return _table(["metric", "better", "mean", "interval", "n"], rows)


def _videos_table(videos: Sequence[Measured]) -> str:
    rows = []
    for video in videos:
        numbers = (
            NOTHING if (value := video.values[name]) is None else f"{value:.{metric.digits}f}"
            for name, metric in METRICS.items()
        )
        rows.append([video.name, str(video.frames), str(video.faces), str(video.tracks), *numbers])
    return _table(["video", "frames", "faces", "tracks", *METRICS], rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _escaped(text: str) -> str:
    """For a cell of a table, whatever a name has in it."""
    return " ".join(text.split()).replace("|", "\\|")

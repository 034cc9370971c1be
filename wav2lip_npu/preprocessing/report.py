"""What ``preprocess`` made of each video: a report line per clip, a summary, a contact sheet."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath

import numpy as np

from wav2lip_npu.constants import FACE_SIZE, FPS
from wav2lip_npu.data.clips import AUDIO, list_crops, load_crops
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.images import put_text
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import (
    WriteError,
    append_lines,
    file_state,
    read_bytes,
    write_image,
    write_text,
)

REPORT = "preprocess_report.jsonl"
SHEET = "preprocess_contact_sheet.png"
MAX_SHEET_CLIPS, SHEET_CROPS = 16, 10  # rows and columns of the contact sheet

MAX_NUMBER = 2**63  # of a report's figures: none is as large

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClipReport:
    """One clip: a whole video, or a shot of one."""

    clip: str  # its folder, in the preprocessed root
    source: str  # the video, in the data root
    source_bytes: int = 0
    source_time: int = 0  # of its last change, ns
    width: int = 0  # of the frames, upright
    height: int = 0
    rotation: int = 0  # degrees that frames were turned for that, counter-clockwise
    fps_in: float = 0.0
    fps_out: float = FPS
    first_frame: int = 0  # in the video, at 25 per second; above 0 for a later shot only
    frames: int = 0  # at 25 per second
    faces: int = 0  # frames with the chosen face, each a crop
    people: int = 0  # who are in 16 frames or more, and the one whose face was chosen
    shots: int = 0  # between cuts
    box_width: float = 0.0  # means, pixels
    box_height: float = 0.0
    box_smallest: int = 0  # heights, pixels
    box_largest: int = 0
    audio_seconds: float = 0.0
    audio_rate: int = 0  # of the source, Hz
    audio_channels: int = 0
    warnings: list[str] = field(default_factory=list)
    rejected: str | None = None  # the reason, if nothing was written
    retry: bool = False  # whether a rerun tries again: the video is not to blame


_FIELD_KINDS: dict[str, tuple[type, ...]] = {
    item.name: {
        "str": (str,),
        "int": (int,),
        "float": (float, int),
        "list[str]": (list,),
        "str | None": (str, type(None)),
        "bool": (bool,),
    }[str(item.type)]
    for item in fields(ClipReport)
}


def report_path(root: Path, rank: int) -> Path:
    """The file that a process writes to; only the first writes to the report itself."""
    path = root / REPORT
    return path if rank == 0 else path.with_suffix(f".{rank}{path.suffix}")


def append_reports(path: Path, reports: Iterable[ClipReport]) -> None:
    """Add the lines of one video, at once.

    Raises:
        WriteError: the file cannot be written.
    """
    try:
        append_lines(path, "".join(_line(report) for report in reports))
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({reason(error)})") from error


def _line(report: ClipReport) -> str:
    return json.dumps(asdict(report)) + "\n"


def read_reports(path: Path) -> dict[str, list[ClipReport]]:
    """The newest reports of each video, by its path in the data root.

    Lines that are damaged, or of other programs, are left out.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        text = read_bytes(path).decode(errors="replace") if path.exists() else ""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from error
    reports: dict[str, dict[str, ClipReport]] = {}
    for line in text.splitlines():
        report = _parse(line)
        if report is None:
            continue
        of_video = reports.setdefault(report.source, {})
        for clip, other in list(of_video.items()):
            if other.retry or _state(other) != _state(report):  # the video has changed since
                del of_video[clip]
        of_video[report.clip] = report
    return {source: list(of_video.values()) for source, of_video in reports.items()}


def _parse(line: str) -> ClipReport | None:
    """A line as a report, or None if it is none; fields of later versions are left out."""
    try:
        values = json.loads(line)
        report = ClipReport(**{name: values[name] for name in _FIELD_KINDS if name in values})
    except (ValueError, TypeError, RecursionError):
        return None
    is_sound = all(_fits(getattr(report, name), kinds) for name, kinds in _FIELD_KINDS.items())
    return report if is_sound and _names_its_clip(report) else None


def _fits(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, list):
        return list in kinds and all(isinstance(item, str) for item in value)
    if isinstance(value, (int, float)) and not abs(value) < MAX_NUMBER:  # NaN too
        return False
    return isinstance(value, kinds)


def _names_its_clip(report: ClipReport) -> bool:
    """Whether the clip's path follows from the video's; others could lead out of the folder."""
    source = PurePosixPath(report.source)
    if source.is_absolute() or ".." in source.parts or not source.name:
        return False
    whole = source.with_suffix("").as_posix()
    return re.fullmatch(rf"{re.escape(whole)}(-shot\d+)?", report.clip) is not None


def _state(report: ClipReport) -> tuple[int, int]:
    return report.source_bytes, report.source_time


def merge_reports(root: Path) -> dict[str, list[ClipReport]]:
    """Make one sorted file of what several processes, and runs, have written; returns it read."""
    path = root / REPORT
    parts = sorted(root.glob(f"{path.stem}.*{path.suffix}"))
    reports = read_reports(path)
    for part in parts:
        reports |= read_reports(part)
    if reports or path.exists():
        every = [report for of_video in reports.values() for report in of_video]
        text = "".join(map(_line, sorted(every, key=lambda report: report.clip)))
        write_text(path, text)
    for part in parts:
        part.unlink()
    return reports


def is_done(reports: Sequence[ClipReport], video: Path, root: Path) -> bool:
    """Whether these reports are of the video as it is now, and their clips are there."""
    state = file_state(video)
    return bool(reports) and all(
        not report.retry
        and _state(report) == state
        and (report.rejected is not None or (root / report.clip / AUDIO).is_file())
        for report in reports
    )


def describe(folder: Path, report: ClipReport) -> ClipReport:
    """A report of a clip that another program has cut."""
    numbers = list_crops(folder)
    return replace(
        report,
        frames=max(numbers, default=-1) + 1,
        faces=len(numbers),
        warnings=["was there already, cut by another program or version"],
    )


def summarize(reports: Sequence[ClipReport], root: Path) -> None:
    """Log what there is now and what was rejected, and make the contact sheet.

    Raises:
        UserError: not one clip is usable.
    """
    usable = [report for report in reports if report.rejected is None]
    frames, faces = sum(r.frames for r in usable), sum(r.faces for r in usable)
    log.info(
        "%d of %d clips usable: %d frames, %d with a face (%.2f %%), %.1f minutes of audio",
        len(usable), len(reports), frames, faces, 100 * faces / max(frames, 1),
        sum(r.audio_seconds for r in usable) / 60,
    )  # fmt: skip
    for report in reports:
        if report.rejected is not None:
            log.warning("%s %s", "failed" if report.retry else "rejected", report.rejected)
        for warning in report.warnings:
            log.warning("kept %s: %s", report.clip, warning)
    log.info("report: %s", root / REPORT)
    if failed := sum(report.retry for report in reports):
        log.warning("%d videos failed; the same command tries these again", failed)
    if not usable:
        raise UserError(
            f"not one of {len(reports)} videos is usable; {root / REPORT} has the reasons"
        )
    try:
        draw_sheet([report.clip for report in usable], root)
        log.info("contact sheet: %s", root / SHEET)
    except Exception as error:  # whatever it is, an image must not fail what is done
        log.warning("no new contact sheet (%s)", reason(error))


def draw_sheet(clips: Sequence[str], root: Path) -> None:
    """Write a row of crops for each of some clips, spread over all clips."""
    rows = []
    chosen = np.linspace(0, len(clips) - 1, min(MAX_SHEET_CLIPS, len(clips))).astype(int)
    for clip in (clips[place] for place in chosen):
        folder = root / clip
        numbers = list_crops(folder)
        if not numbers:
            continue
        places = np.linspace(0, len(numbers) - 1, SHEET_CROPS).astype(int)
        crops = load_crops(folder, [numbers[place] for place in places])
        title = np.full((18, SHEET_CROPS * FACE_SIZE, 3), 255, np.uint8)
        text = f"{clip}: frames {numbers[0]} to {numbers[-1]}"
        put_text(title, text, (4, 13), scale=0.42, level=0)
        rows += [title, np.concatenate(list(crops), axis=1)]
    if rows:
        write_image(root / SHEET, np.concatenate(rows))

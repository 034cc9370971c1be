"""The command ``sync``: measure every clip of a tree; on request, shift sound and write lists.

Without ``--fix`` and ``--filter`` nothing changes but the report and what is kept of each mouth.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from wav2lip_npu.config import SyncConfig
from wav2lip_npu.data.clip_tree import usable_clips
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import threads
from wav2lip_npu.runtime.files import read_text, write_text
from wav2lip_npu.runtime.locks import folder_lock
from wav2lip_npu.runtime.signals import stop_signals
from wav2lip_npu.sync.measure import Measured, measure, read_talks
from wav2lip_npu.sync.report import (
    IN_SYNC,
    OFF,
    SHIFTED,
    UNCLEAR,
    UNREADABLE,
    ClipSync,
    log_summary,
    write_report,
)
from wav2lip_npu.sync.shift import shift_sound

LISTS = ("train.txt", "val.txt", "test.txt")

log = logging.getLogger(__name__)


def sync(config: SyncConfig) -> list[ClipSync]:
    """Measure how late the sound of each clip comes.

    Returns:
        What was found of each, sorted by name; it is also in the report.

    Raises:
        UserError: no clips there, a list that cannot be filtered, or a file cannot be written.
        KeyboardInterrupt: stopped by a signal; what was computed of clips is kept.
    """
    root = config.data_root
    clips = usable_clips(root)
    lists = _lists_to_filter(config)
    workers = min(config.num_workers or threads.share_of_cores(), len(clips))
    with folder_lock(root, "sync"), stop_signals() as stop:
        talks, faults = read_talks(root, clips, workers, stop)
        if stop.is_set():
            log.info("stopped; the same command goes on from here")
            raise KeyboardInterrupt
        found = measure(talks)
        entries = [_judge(clip, found, faults, config) for clip in clips]
        if config.fix:
            entries = [_mend(entry, root) for entry in tqdm(entries, unit="clip", disable=None)]
        write_report(entries, root)
    log_summary(entries, root)
    if not config.fix and any(entry.state == OFF for entry in entries):
        log.info("--fix shifts the sound of those that are off")
    for path, lines in lists.items():
        _filter(path, lines, entries)
    return entries


def _judge(
    clip: str, found: Mapping[str, Measured], faults: Mapping[str, str], config: SyncConfig
) -> ClipSync:
    if clip not in found:
        return ClipSync(clip=clip, state=UNREADABLE, reason=faults.get(clip))
    offset, confidence = found[clip].offset, found[clip].confidence
    state = UNCLEAR
    if confidence >= config.min_confidence:
        state = OFF if abs(round(offset)) >= config.min_offset else IN_SYNC
    return ClipSync(clip=clip, state=state, offset=offset, confidence=confidence)


def _mend(entry: ClipSync, root: Path) -> ClipSync:
    """Shift the sound of a clip that is off; what goes wrong with it costs it alone."""
    if entry.state != OFF or entry.offset is None:
        return entry
    try:
        shift_sound(root / entry.clip, round(entry.offset))
    except UserError as error:
        log.warning("%s", error)
        return replace(entry, reason=str(error))
    return replace(entry, state=SHIFTED)


# --- file lists ----------------------------------------------------------------------------------


def _lists_to_filter(config: SyncConfig) -> dict[Path, list[str]]:
    """The lines of each list, by the path of the list that is to be written.

    Raises:
        UserError: there is no list, or one would be replaced.
    """
    if config.filter is None:
        return {}
    if config.filter.absolute() == config.filelists.absolute():
        raise UserError(
            f"--filter {config.filter}: is the folder of --filelists; its lists are kept"
        )
    names = [name for name in LISTS if (config.filelists / name).is_file()]
    if not names:
        raise UserError(f"--filelists {config.filelists}: has none of {', '.join(LISTS)}")
    return {
        config.filter / name: [
            line for line in read_text(config.filelists / name).splitlines() if line.strip()
        ]
        for name in names
    }


def _filter(path: Path, lines: Sequence[str], entries: Sequence[ClipSync]) -> None:
    """Write a list without the clips whose sound is not theirs, or still off."""
    states = {entry.clip: entry.state for entry in entries}
    kept = [line for line in lines if _state_of(line, states) in (IN_SYNC, SHIFTED)]
    write_text(path, "".join(f"{line}\n" for line in kept))
    log.info("%s: %d of %d clips", path, len(kept), len(lines))
    if not kept and lines:
        log.warning("%s: is empty; see the report, or a smaller --min_confidence", path)


def _state_of(line: str, states: Mapping[str, str]) -> str | None:
    """The state of the clip that a line names, which may have more words behind it, as LRS2's."""
    clip = line.strip().rstrip("/")
    return states.get(clip, states.get(clip.split()[0].rstrip("/")))

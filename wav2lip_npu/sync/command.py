"""The command ``sync``: measure every clip of a tree; on request, shift sound and write lists.

Without ``--fix`` and ``--filter`` nothing changes but the report and what is kept of each mouth.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from wav2lip_npu.config import SyncConfig
from wav2lip_npu.console.progress import track
from wav2lip_npu.data.clip_tree import usable_clips
from wav2lip_npu.errors import UserError
from wav2lip_npu.run_options import options_path, write_options
from wav2lip_npu.runtime import distributed
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import read_text, write_text
from wav2lip_npu.runtime.locks import folder_lock
from wav2lip_npu.runtime.signals import stop_signals
from wav2lip_npu.runtime.threads import process_share
from wav2lip_npu.sync.measure import Measured, Readings, measure, read
from wav2lip_npu.sync.report import (
    IN_SYNC,
    JUMPS,
    OFF,
    SHIFTED,
    UNCLEAR,
    UNREADABLE,
    ClipSync,
    log_summary,
    write_report,
)
from wav2lip_npu.sync.shift import shift_sound
from wav2lip_npu.sync.workers import other_clips

LISTS = ("train.txt", "val.txt", "test.txt")

log = logging.getLogger(__name__)


def sync(config: SyncConfig) -> list[ClipSync]:
    """Measure how late the sound of each clip comes.

    Of several processes each reads its share of the clips, and the first one does the rest.

    Returns:
        What was found of each, sorted by name; it is also in the report. Nothing in a process that
        is not the first.

    Raises:
        UserError: no clips there, a list that cannot be filtered, or a file cannot be written.
        KeyboardInterrupt: stopped by a signal; what was computed of clips is kept.
    """
    clips = usable_clips(config.data_root)
    if not _read_shares(config, clips):
        return []
    root, outdir = config.data_root, config.outdir or config.data_root
    lists = _lists_to_filter(config)
    with ExitStack() as locks:
        locks.enter_context(folder_lock(outdir, "sync"))
        if config.fix and outdir != root:
            locks.enter_context(folder_lock(root, "sync"))
        readings = _read(config, clips, clips)
        if not readings.clips:
            fault = next(iter(readings.faults.values()))
            raise UserError(f"not one of {len(clips)} clips can be read; {fault}")
        found = measure(readings)
        entries = [_judge(clip, found, readings.faults, config) for clip in clips]
        write_options(options_path(outdir, config), config)
        write_report(entries, outdir)
        if config.fix:
            entries = _mend_all(entries, readings, config)
            write_report(entries, outdir)
    log_summary(entries, outdir)
    if not config.fix and any(entry.state == OFF for entry in entries):
        log.info("--fix shifts the sound of those that are off")
    for path, lines in lists.items():
        _filter(path, lines, entries)
    return entries


def _read_shares(config: SyncConfig, clips: list[str]) -> bool:
    """Let each process of torchrun read its share; what it finds is kept beside the clips.

    Returns:
        Whether this is the first process, which goes on.
    """
    rank, processes = process_share()
    if processes == 1:
        return True
    device = Device.open(config.device, config.precision, strict_fp32=config.strict_fp32)
    with distributed.join(device) as world:
        if share := clips[rank::processes]:
            _read(config, share, clips)
        world.wait_for_all()
    return rank == 0


def _read(config: SyncConfig, clips: list[str], all_clips: list[str]) -> Readings:
    """See ``measure.read``.

    Raises:
        KeyboardInterrupt: stopped by a signal.
    """
    with stop_signals() as stop:
        readings = read(config, clips, other_clips(all_clips), stop)
    if stop.is_set():
        log.info("stopped; the same command goes on from here")
        raise KeyboardInterrupt
    return readings


def _judge(
    clip: str, found: Mapping[str, Measured], faults: Mapping[str, str], config: SyncConfig
) -> ClipSync:
    if clip not in found:
        return ClipSync(clip=clip, state=UNREADABLE, reason=faults.get(clip))
    offset, confidence = found[clip].offset, found[clip].confidence
    parts = found[clip].segments
    state, jumps = UNCLEAR, None
    if len(parts) > 1:
        state, jumps = JUMPS, [asdict(part) for part in parts]
    elif offset is not None and confidence >= config.least_confidence:
        state = OFF if abs(round(offset)) >= config.min_offset else IN_SYNC
    return ClipSync(clip=clip, state=state, offset=offset, confidence=confidence, jumps=jumps)


def _mend_all(entries: list[ClipSync], readings: Readings, config: SyncConfig) -> list[ClipSync]:
    """Shift the sound of all clips that are off; after a signal the rest stays as it is."""
    mended = []
    with stop_signals() as stop:
        for entry in track(entries, "shifting", "clip", len(entries)):
            is_off = entry.state == OFF and not stop.is_set()
            mended.append(_mend(entry, readings, config) if is_off else entry)
    if stop.is_set():
        log.info("stopped; clips that are shifted stay so, the same command goes on from here")
        raise KeyboardInterrupt
    return mended


def _mend(entry: ClipSync, readings: Readings, config: SyncConfig) -> ClipSync:
    """Shift the sound of a clip; whatever goes wrong with it costs it alone."""
    late = entry.offset or 0.0
    late = late if config.fractional else round(late)
    try:
        shift_sound(config.data_root / entry.clip, late, readings.sound(entry.clip))
    except Exception as error:
        log.warning("%s: %s", entry.clip, reason(error))
        return replace(entry, reason=reason(error))
    return replace(entry, state=SHIFTED)


# --- file lists ----------------------------------------------------------------------------------


def _lists_to_filter(config: SyncConfig) -> dict[Path, list[str]]:
    """The lines of each list, by the path of the list that is to be written.

    Raises:
        UserError: there is no list, or one would be replaced or cannot be written.
    """
    if config.filter is None:
        return {}
    if config.filter.resolve() == config.filelists.resolve():
        raise UserError(
            f"--filter {config.filter}: is the folder of --filelists; its lists are kept"
        )
    names = [name for name in LISTS if (config.filelists / name).is_file()]
    if not names:
        raise UserError(f"--filelists {config.filelists}: has none of {', '.join(LISTS)}")
    there = [name for name in LISTS if (config.filter / name).exists()]
    if there and not config.overwrite:
        raise UserError(
            f"{config.filter / there[0]}: is there; give --overwrite to replace it, or another "
            "folder as --filter"
        )
    try:
        config.filter.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--filter {config.filter}: {error.strerror}") from error
    return {
        config.filter / name: [
            line for line in read_text(config.filelists / name).splitlines() if line.strip()
        ]
        for name in names
    }


def _filter(path: Path, lines: Sequence[str], entries: Sequence[ClipSync]) -> None:
    """Write a list without the clips whose sound is not theirs, or still off."""
    states = {entry.clip: entry.state for entry in entries}
    found = [_state_of(line, states) for line in lines]
    kept = [line for line, state in zip(lines, found, strict=True) if state in (IN_SYNC, SHIFTED)]
    write_text(path, "".join(f"{line}\n" for line in kept))
    log.info("%s: %d of %d clips", path, len(kept), len(lines))
    if unknown := found.count(None):
        log.warning(
            "%s: %d clips left out that are no usable clips below --data_root: lists and "
            "--data_root must be those of the training",
            path, unknown,
        )  # fmt: skip
    elif not kept and lines:
        log.warning("%s: is empty; see the report, or a smaller --min_confidence", path)


def _state_of(line: str, states: Mapping[str, str]) -> str | None:
    """The state of the clip that a line names, which may have more words behind it, as LRS2's."""
    for clip in (line.strip(), *line.split()[:1]):
        state = states.get(os.path.normpath(clip))
        if state is not None:
            return state
    return None

"""The clips in a tree of folders."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from wav2lip_npu.data.clips import AUDIO, MIN_CLIP_FRAMES, clip_fault, crop_number
from wav2lip_npu.errors import UserError

MAX_LOGGED_CLIPS = 10  # of those left out

log = logging.getLogger(__name__)


def usable_clips(root: Path) -> list[str]:
    """The clips below ``--data_root``; those that are left out are logged.

    Raises:
        UserError: no such folder, or no usable clip in it.
    """
    if not root.is_dir():
        raise UserError(f"--data_root {root}: no such folder")
    clips, left_out = find_clips(root)
    if not clips:
        reason = f"; left out: {left_out[0]}" if left_out else ""
        raise UserError(
            f"--data_root {root}: no usable clip in it, at any depth (a clip is a folder of "
            f"{MIN_CLIP_FRAMES} crops or more, 0.jpg, 1.jpg …, and {AUDIO}){reason}"
        )
    for reason in left_out[:MAX_LOGGED_CLIPS]:
        log.warning("left out: %s", reason)
    if len(left_out) > MAX_LOGGED_CLIPS:
        log.warning("left out: %d clips in all", len(left_out))
    return clips


def find_clips(root: Path) -> tuple[list[str], list[str]]:
    """Look for clips at any depth; links are followed, hidden folders are not entered.

    Only names are read, no file is opened or asked for its size: trees have millions of files.

    Returns:
        The usable clips, relative to ``root``, sorted; and what is wrong with each of the others.
    """
    clips, left_out = [], []
    visited = set()  # so that links neither go round in circles nor put a clip into two lists
    folders = [("", root.resolve())]
    while folders:
        name, folder = folders.pop()
        if folder in visited:
            continue
        visited.add(folder)
        try:
            crops, has_audio, below = _look_into(folder)
        except OSError as error:
            left_out.append(f"{folder}: {error.strerror}")
            continue
        if name and (crops or has_audio):
            fault = _fault(name, crops, has_audio)
            if fault is None:
                clips.append(name)
            else:
                left_out.append(fault)
        if not name or not crops:
            names = sorted(below, reverse=True)  # the first comes next
            folders += [(f"{name}/{child}".lstrip("/"), below[child]) for child in names]
    return sorted(clips), sorted(left_out)


def _look_into(folder: Path) -> tuple[int, bool, dict[str, Path]]:
    """How many crops there are, whether audio is, and the folders below: name → real path."""
    crops, has_audio, below = 0, False, {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if crop_number(entry.name) is not None:
                crops += 1
            elif entry.name == AUDIO:
                has_audio = True
            elif not entry.name.startswith(".") and _is_folder(entry):
                path = folder / entry.name
                below[entry.name] = path.resolve() if entry.is_symlink() else path
    return crops, has_audio, below


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in circles
        return False


def _fault(clip: str, crops: int, has_audio: bool) -> str | None:
    if (fault := clip_fault(crops, has_audio=has_audio)) is not None:
        return f"{clip}: {fault}"
    if clip.encode(errors="ignore").decode().splitlines() != [clip.strip()]:
        return f"{clip!r}: a name that a list, in UTF-8, cannot hold"
    return None

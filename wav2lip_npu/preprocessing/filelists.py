"""File lists from a tree of preprocessed clips, so that no speaker is in two of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from wav2lip_npu.config import FilelistsConfig
from wav2lip_npu.data.clip_tree import usable_clips
from wav2lip_npu.errors import UserError
from wav2lip_npu.run_options import options_path, write_options
from wav2lip_npu.runtime.files import read_bytes, write_text

SPEAKER_FOLDER = re.compile(r"s\d+|id\d{5}")  # GRID's and VoxCeleb's folders, at any depth
# Folders that are parts of corpora, not speakers; some are official lists.
CORPUS_PARTS = {
    **{"test": "test", "val": "val", "valid": "val", "validation": "val"},
    **dict.fromkeys(("main", "pretrain", "trainval", "train", "dev")),
}

Lists = dict[str, list[str]]  # "train", "val" and "test": the clips of each

log = logging.getLogger(__name__)


def write_filelists(config: FilelistsConfig) -> Lists:
    """Write ``train.txt``, ``val.txt`` and ``test.txt``: a clip's folder a line, sorted.

    Returns:
        The clips of each list, as they were written.

    Raises:
        UserError: no such folder, too few usable clips, or a list there that would be changed.
    """
    clips = usable_clips(config.data_root)
    lists = divide(clips, {"val": config.val, "test": config.test}, config.seed)
    if not lists["train"] or not lists["val"]:
        raise UserError(
            f"--data_root {config.data_root}: its {len(clips)} usable clips are too few, or all of "
            "them below test or val; two videos are needed, one to train on and one to validate on"
        )
    _write(config.filelists, lists, overwrite=config.overwrite)
    write_options(options_path(config.filelists, config), config)
    _summarize(config, lists)
    return lists


def speaker_of(clip: str) -> str | None:
    """The speaker by a clip's path: the folder that it is in, unless that is a part of a corpus.

    A folder that is named as GRID's speakers are, ``s1`` or ``s1/video/mpg_6000``, goes before.
    """
    folders = clip.split("/")[:-1]
    for folder in folders:
        if SPEAKER_FOLDER.fullmatch(folder):
            return folder
    return folders[-1] if folders and folders[-1].lower() not in CORPUS_PARTS else None


def video_of(clip: str) -> str:
    """The path that the shots of one video, ``00001-shot1`` and so on, have in common."""
    return re.sub(r"-shot\d+$", "", clip)


def official_list(clip: str) -> str | None:
    """The list that a clip's path puts it into: "test" for LRS3's ``test/<speaker>/00001``."""
    lists = {CORPUS_PARTS.get(folder.lower()) for folder in clip.split("/")[:-1]}
    return next((name for name in ("test", "val") if name in lists), None)


def divide(clips: list[str], shares: dict[str, float], seed: int) -> Lists:
    """Divide clips by their speakers, or by videos where speakers are unknown or too few.

    Speakers are too few if train would keep less than half of its share.

    Args:
        clips: paths relative to the data root.
        shares: of "val" and "test", of the clips that are in no official list. An official list
            gets no others.
        seed: another seed, another choice.

    Returns:
        The clips of each list, sorted. "test" is empty rather than "train" or "val"; those are
        empty if there are too few videos.
    """
    lists = _divide_groups(clips, lambda clip: speaker_of(clip) or video_of(clip), shares, seed)
    for_train = (1 - sum(shares.values())) * sum(official_list(clip) is None for clip in clips)
    if lists["val"] and len(lists["train"]) >= for_train / 2:
        return lists
    speakers = len({speaker_of(clip) for clip in clips} - {None})
    if speakers == 1:
        log.warning(
            "one speaker only: split by clip, so validation hears a voice that training knows"
        )
    elif speakers:
        log.warning(
            "%d speakers only: split by clip, so validation hears voices that training knows",
            speakers,
        )
    lists = _divide_groups(clips, video_of, shares, seed)
    if not lists["train"] or not lists["val"]:
        lists = _divide_groups(clips, video_of, {**shares, "test": 0.0}, seed)
    return lists


def _divide_groups(
    clips: list[str], group_of: Callable[[str], str], shares: dict[str, float], seed: int
) -> Lists:
    groups: dict[str, list[str]] = {}
    for clip in clips:
        groups.setdefault(group_of(clip), []).append(clip)
    lists: Lists = {"train": [], "val": [], "test": []}
    free = {}
    for group, members in groups.items():
        official = {official_list(clip) for clip in members}
        if official == {None}:
            free[group] = members
        else:
            lists["test" if "test" in official else "val"] += members
    total = sum(map(len, free.values()))
    for name in ("test", "val"):
        if not lists[name]:
            wanted = round(shares[name] * total, 6)  # 7, where floats make 7.000000000000001 of it
            _fill(lists[name], free, wanted, f"{seed} {name}")
    lists["train"] = [clip for members in free.values() for clip in members]
    return {name: sorted(members) for name, members in lists.items()}


def _fill(chosen: list[str], free: dict[str, list[str]], wanted: float, key: str) -> None:
    """Move groups from ``free``, but its last, until ``wanted`` clips are chosen.

    The order is a hash's: clips that are added later hardly change what is chosen. Groups that are
    larger than the whole list is to be come last, the smallest first.
    """

    def rank(group: str) -> tuple[float, bytes]:
        return max(len(free[group]), wanted), blake2b(f"{key} {group}".encode()).digest()

    for group in sorted(free, key=rank)[:-1]:
        if len(chosen) >= wanted:
            break
        chosen += free.pop(group)


def _write(folder: Path, lists: Lists, *, overwrite: bool) -> None:
    """Write each list whole or not at all.

    Raises:
        UserError: ``folder`` is a file, or has a list of other content and it is not to be lost.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--filelists {folder}: is a file; name a folder")
    contents = {
        folder / f"{name}.txt": "".join(f"{clip}\n" for clip in clips)
        for name, clips in lists.items()
    }
    for path, content in contents.items():
        if not overwrite and path.exists() and read_bytes(path) != content.encode():
            raise UserError(
                f"{path}: is there with other clips; give --overwrite to replace it, or another "
                "folder as --filelists"
            )
    for path, content in contents.items():
        write_text(path, content)


def _summarize(config: FilelistsConfig, lists: Lists) -> None:
    """Log what is in each list, and what keeps the lists apart."""
    known, unknown = [], 0  # the speakers of each list; clips without
    for name, clips in lists.items():
        speakers = [speaker_of(clip) for clip in clips]
        known.append(set(speakers) - {None})
        unknown += speakers.count(None)
        log.info(
            "%s.txt: %d clips%s%s%s", name, len(clips),
            f" of {len(known[-1])} speakers" if known[-1] else "",
            f", {speakers.count(None)} of unknown speakers" if None in speakers else "",
            ", the official part" if any(official_list(clip) == name for clip in clips) else "",
        )  # fmt: skip
    if config.test and not lists["test"]:
        log.warning("test.txt: empty, as there are too few clips for it")
    if sum(map(len, known)) > len(set().union(*known)):
        log.info("disjoint by clip: speakers are in more than one list")
    elif unknown:
        log.info("disjoint by clip: who speaks in %d of them is not known", unknown)
    else:
        log.info("disjoint by speaker")
    log.info("train with --data_root %s --filelists %s", config.data_root, config.filelists)

"""The videos below a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from wav2lip_npu.errors import UserError
from wav2lip_npu.media.video_reader import VIDEO_SUFFIXES, is_video, is_video_by_name
from wav2lip_npu.runtime.workers import WorkerPool

log = logging.getLogger(__name__)


def find_videos(root: Path, option: str = "--data_root") -> dict[str, Path]:
    """The videos below a folder: path in it → file; links to folders are followed.

    A file with an unknown suffix is opened to find out, in a process of its own: decoders crash.

    Args:
        root: the folder.
        option: that names it, for errors.

    Raises:
        UserError: no such folder, no video in it, or two that differ in their suffix only.
    """
    if not root.is_dir():
        raise UserError(f"{option} {root}: no such folder")
    by_name = {path: is_video_by_name(path) for path in _files(root)}
    unknown = _probe([path for path, known in by_name.items() if known is None])
    videos: dict[str, Path] = {}
    by_clip: dict[str, Path] = {}
    for path in sorted(path for path, known in by_name.items() if known or path in unknown):
        source = path.relative_to(root)
        clip = source.with_suffix("").as_posix()
        if clip in by_clip:
            raise UserError(f"{path} and {by_clip[clip]}: would both become {clip}; rename one")
        by_clip[clip] = videos[source.as_posix()] = path
    if not videos:
        kinds = " ".join(sorted(VIDEO_SUFFIXES))
        raise UserError(f"{option} {root}: no video in it, at any depth ({kinds})")
    return videos


def _files(root: Path) -> Iterator[Path]:
    """All regular files below a folder, each folder entered once; what cannot be read is logged."""
    entered = set()
    for folder, folders, names in os.walk(root, onerror=_log_unreadable, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116 (a Path takes longer)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in names:
            path = Path(folder, name)
            if path.is_file():
                yield path
            elif is_video_by_name(path):
                log.warning("left out: %s: no regular file, or a link to nothing", path)


def _log_unreadable(error: OSError) -> None:
    log.warning("left out: %s: %s", error.filename, error.strerror)


def _probe(paths: list[Path]) -> set[Path]:
    """Which of these files are videos, by their content."""
    pool: WorkerPool[Path] = WorkerPool(_Prober, [()])
    for path in paths:
        pool.submit(path)
    videos = set()
    try:
        for outcome in pool.outcomes():
            if outcome.failure is not None:
                log.warning("left out: %s: %s", outcome.job, outcome.failure.reason)
            elif outcome.result:
                videos.add(outcome.job)
    finally:
        pool.close()
    return videos


class _Prober:
    def process(self, path: Path) -> bool:
        return is_video(path)

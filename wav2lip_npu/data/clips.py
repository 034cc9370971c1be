"""Preprocessed clips on disk: which are usable, their crops, and their mel spectrograms."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from wav2lip_npu.constants import FACE_SIZE, LOWER_HALF, WINDOW_FRAMES
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import load_audio
from wav2lip_npu.mel import WINDOW_ROWS, melspectrogram, valid_starts
from wav2lip_npu.runtime.files import WriteError, atomic_write, publish, publish_folder

AUDIO = "audio.wav"  # in a clip's folder, beside the crops 0.jpg, 1.jpg …
MEL = "mel.npy"  # its mel spectrogram, computed once
MIN_CLIP_FRAMES = 3 * WINDOW_FRAMES + 1  # crops that a clip must have, as in the original

_CROP_NAME = re.compile(r"(0|[1-9][0-9]{0,8})\.jpg")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A folder of crops and audio, and where windows may start in it."""

    folder: Path
    crops: np.ndarray  # frames that have a crop, rising
    targets: np.ndarray  # frames from which five crops, and all their mel rows, are there
    windows: np.ndarray  # frames from which five crops are there
    mel_rows: int  # rows of its mel spectrogram
    fingerprint: str  # changes when a crop or the audio does


def crop_number(name: str) -> int | None:
    """The frame of a file ``N.jpg`` in a clip's folder; None for others, and for ``07.jpg``."""
    found = _CROP_NAME.fullmatch(name)
    return int(found[1]) if found else None


def list_crops(folder: Path) -> list[int]:
    """The frames that have a crop in a clip's folder, rising.

    Raises:
        OSError: the folder cannot be read.
    """
    numbers = (crop_number(name) for name in os.listdir(folder))  # noqa: PTH208
    return sorted(number for number in numbers if number is not None)


def publish_clip(partial: Path, folder: Path) -> None:
    """Move a complete clip to its place, in which an earlier one of it may be.

    Other files in that folder, and the clips below it, stay. The sound comes last: a clip that has
    it is whole.

    Raises:
        OSError: the disk does not allow it.
    """
    if not folder.exists():
        publish_folder(partial, folder)
        return
    remove_clip(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(partial.iterdir(), key=lambda file: file.name == AUDIO):
        publish(file, folder / file.name)
    partial.rmdir()


def remove_clip(folder: Path) -> None:
    """Remove a clip: its crops, its sound and its spectrogram, and the folder if it is then empty.

    Raises:
        OSError: the disk does not allow it.
    """
    if not folder.is_dir():
        return
    (folder / AUDIO).unlink(missing_ok=True)  # first: what is left is no whole clip
    (folder / MEL).unlink(missing_ok=True)
    for number in list_crops(folder):
        (folder / f"{number}.jpg").unlink()
    with suppress(OSError):  # it has other files, or clips of its own
        folder.rmdir()


def clip_fault(crops: int, *, has_audio: bool) -> str | None:
    """Why a folder with so many crops is no usable clip, or None."""
    if crops < MIN_CLIP_FRAMES:
        return f"{crops} crops, {MIN_CLIP_FRAMES} are needed"
    return None if has_audio else f"no {AUDIO}"


def read_clips(data_root: Path, filelist: Path, *, per_frame_mels: bool) -> list[Clip]:
    """The usable clips that a file list names; those that are not are logged with the reason.

    The mel spectrogram of every clip is computed here, once, and kept beside its audio.

    Args:
        data_root: what the list's lines are relative to.
        filelist: a clip's folder a line; where there is none of that name, what follows a space
            is ignored, as LRS2's lists need it.
        per_frame_mels: whether targets need the generator's mel rows too, see ``mel.valid_starts``.

    Raises:
        UserError: no list, or no usable clip in it.
    """
    if not filelist.is_file():
        raise UserError(
            f"{filelist}: no such file; wav2lip-npu filelists writes it, or list there a clip's "
            "folder a line, relative to --data_root"
        )
    lines = filelist.read_text(encoding="utf-8").splitlines()
    folders = [_folder(data_root, line.strip()) for line in lines if line.strip()]

    def read(folder: Path) -> Clip | UserError:
        try:
            return _read_clip(folder, per_frame_mels)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        title = f"reading {filelist.name}"
        results = list(tqdm(pool.map(read, folders), title, len(folders), disable=None))
    clips = [result for result in results if isinstance(result, Clip)]
    rejected = [result for result in results if isinstance(result, UserError)]
    if not clips:
        first = f"; the first: {rejected[0]}" if rejected else ""
        raise UserError(f"{filelist}: none of its {len(folders)} clips is usable{first}")
    for error in rejected:
        log.warning("left out: %s", error)
    log.info("%s: %d clips, %d left out", filelist, len(clips), len(rejected))
    return clips


def _folder(data_root: Path, line: str) -> Path:
    whole = data_root / line
    return whole if whole.is_dir() else data_root / line.split()[0]


def _read_clip(folder: Path, per_frame_mels: bool) -> Clip:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    numbers, has_audio, fingerprint = _scan(folder)
    if (fault := clip_fault(len(numbers), has_audio=has_audio)) is not None:
        raise UserError(f"{folder}: {fault}")
    mel_rows = load_mel(folder).shape[1]
    crops = set(numbers)
    windows = np.array([n for n in numbers if crops.issuperset(range(n, n + WINDOW_FRAMES))], int)
    targets = valid_starts(windows, mel_rows, per_frame=per_frame_mels)
    if not len(targets) or len(windows) < 2:
        raise UserError(f"{folder}: no {WINDOW_FRAMES} crops in a row with audio to them")
    return Clip(
        folder=folder,
        crops=np.array(numbers),
        targets=targets,
        windows=windows,
        mel_rows=mel_rows,
        fingerprint=fingerprint,
    )


def _scan(folder: Path) -> tuple[list[int], bool, str]:
    """The crops' frames, whether audio is there, and a fingerprint of both by size and time."""
    numbers, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            number = crop_number(entry.name)
            if number is not None:
                numbers.append(number)
            if number is not None or entry.name == AUDIO:
                status = entry.stat()
                files.append((entry.name, status.st_size, status.st_mtime_ns))
    digest = hashlib.blake2b(repr(sorted(files)).encode(), digest_size=8)
    return sorted(numbers), len(files) > len(numbers), digest.hexdigest()


@lru_cache(maxsize=1024)
def load_mel(folder: Path) -> np.ndarray:
    """The mel spectrogram of a clip, float32 (80, rows): computed once, then kept on disk.

    Raises:
        UserError: the clip has no audio that can be read.
    """
    sound, cache = folder / AUDIO, folder / MEL
    if cache.is_file() and sound.is_file() and cache.stat().st_mtime >= sound.stat().st_mtime:
        return np.load(cache)
    mel = melspectrogram(load_audio(sound))
    with suppress(WriteError), atomic_write(cache) as partial:  # a data set may be read-only
        np.save(partial, mel)
    return mel


def load_crops(folder: Path, numbers: Sequence[int]) -> np.ndarray:
    """Crops as the networks see them, uint8 (len(numbers), 96, 96, 3) BGR.

    Raises:
        UserError: a crop cannot be decoded.
    """
    faces = np.empty((len(numbers), FACE_SIZE, FACE_SIZE, 3), np.uint8)
    for face, number in zip(faces, numbers, strict=True):
        path = folder / f"{number}.jpg"
        crop = cv2.imread(str(path))
        if crop is None:
            raise UserError(f"{path}: cannot be read as an image; delete it, or cut the clip anew")
        cv2.resize(crop, (FACE_SIZE, FACE_SIZE), dst=face)
    return faces


class ClipFiles:
    """Windows from the clips' own files: crops are decoded each time; see ``batches.Store``."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.folders = [clip.folder for clip in clips]

    def faces(self, clips: np.ndarray, starts: np.ndarray, *, lower: bool = False) -> torch.Tensor:
        """See ``batches.Store``."""
        windows = [
            load_crops(self.folders[clip], range(start, start + WINDOW_FRAMES))
            for clip, start in zip(clips.tolist(), starts.tolist(), strict=True)
        ]
        faces = torch.from_numpy(np.stack(windows))
        return faces[:, :, LOWER_HALF:].contiguous() if lower else faces

    def mels(self, clips: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """See ``batches.Store``."""
        windows = [
            [load_mel(self.folders[clip])[:, row : row + WINDOW_ROWS] for row in rows_of_clip]
            for clip, rows_of_clip in zip(clips.tolist(), rows.tolist(), strict=True)
        ]
        return torch.from_numpy(np.array(windows))

"""Preprocessed clips on disk: which are usable, their crops, and their mel spectrograms."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import wave
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch

from wav2lip_npu.console.progress import track
from wav2lip_npu.constants import FACE_SIZE, LOWER_HALF, SAMPLE_RATE, WINDOW_FRAMES
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import load_audio
from wav2lip_npu.media.video_reader import VIDEO_SUFFIXES
from wav2lip_npu.mel import HOP, MEL_BANDS, MEL_LIMIT, WINDOW_ROWS, melspectrogram, valid_starts
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import (
    WriteError,
    atomic_write,
    publish,
    publish_folder,
    read_bytes,
    read_text,
)
from wav2lip_npu.runtime.threads import usable_cores

AUDIO = "audio.wav"  # in a clip's folder, beside the crops 0.jpg, 1.jpg …
SHIFT = "audio.shift.json"  # what ``sync --fix`` did to it; the sound before is kept beside it
MEL = "mel.npy"  # its mel spectrogram, computed once
MOUTH = "mouth.npz"  # the shape of its mouth, computed once, see ``mouths``
EXPERT = "expert.npz"  # what an expert found by sliding over it, see ``sync``
MIN_CLIP_FRAMES = 3 * WINDOW_FRAMES + 1  # crops that a clip must have, as in the original

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_TAIL_BYTES = 64  # in which a whole JPEG file has its end mark
MIN_JPEG_BYTES = 200  # the tables alone take more; pointers of git-lfs take less
_ORIGINAL_NAME = re.compile(r"audio\.original(?:-(\d+))?\.wav")
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
    with os.scandir(folder) as entries:
        numbers = (crop_number(entry.name) for entry in entries if _is_file(entry))
        return sorted(number for number in numbers if number is not None)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # links in a circle
        return False


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
    """Remove a clip: its crops, its sound, what was computed of them, and the folder if empty.

    Raises:
        OSError: the disk does not allow it.
    """
    if not folder.is_dir():
        return
    (folder / AUDIO).unlink(missing_ok=True)  # first: what is left is no whole clip
    for path in (
        folder / SHIFT,
        folder / MEL,
        folder / MOUTH,
        folder / EXPERT,
        *original_audio(folder),
    ):
        path.unlink(missing_ok=True)
    for number in list_crops(folder):
        (folder / f"{number}.jpg").unlink()
    with suppress(OSError):  # it has other files, or clips of its own
        folder.rmdir()


def original_audio(folder: Path) -> list[Path]:
    """The sound as it was before ``sync --fix`` shifted it, the first one first."""
    found = (_ORIGINAL_NAME.fullmatch(path.name) for path in folder.iterdir())
    numbered = sorted((int(match[1] or 1), match[0]) for match in found if match)
    return [folder / name for _, name in numbered]


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
    lines = [line.strip() for line in read_text(filelist).splitlines() if line.strip()]

    def read(line: str) -> Clip | UserError:
        try:
            return _read_clip(data_root, line, per_frame_mels)
        except UserError as error:
            return error
        except Exception as error:  # whatever it is, it costs this clip alone
            return UserError(f"{data_root / line}: {reason(error)}")

    with ThreadPoolExecutor(usable_cores()) as pool:
        title = f"reading {filelist.name}"
        results = list(track(pool.map(read, lines), title, "clip", len(lines)))
    clips = [result for result in results if isinstance(result, Clip)]
    rejected = [result for result in results if isinstance(result, UserError)]
    if not clips:
        first = f"; the first: {rejected[0]}" if rejected else ""
        raise UserError(f"{filelist}: none of its {len(lines)} clips is usable{first}")
    for error in rejected:
        log.warning("left out: %s", error)
    log.info("%s: %d clips, %d left out", filelist, len(clips), len(rejected))
    return clips


def _find_folder(data_root: Path, line: str) -> Path:
    """The clip's folder that a line of a list names.

    Raises:
        UserError: there is none.
    """
    whole = data_root / line
    if whole.is_dir():
        return whole
    folder = data_root / line.split()[0]
    if folder.is_dir():
        return folder
    hint = ""
    if "\\" in line:
        hint = "; write / between folders"
    elif Path(line.split()[0]).suffix.lower() in VIDEO_SUFFIXES:
        hint = "; a list names folders of preprocessed clips, not videos"
    raise UserError(f"{folder}: no such folder{hint}")


def _read_clip(data_root: Path, line: str, per_frame_mels: bool) -> Clip:
    folder = _find_folder(data_root, line)
    numbers, unusable, has_audio, fingerprint = _scan(folder)
    if unusable:
        log.warning(
            "left out: %s/%d.jpg and %d more: not JPEG files",
            folder, unusable[0], len(unusable) - 1,
        )  # fmt: skip
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


def _scan(folder: Path) -> tuple[list[int], list[int], bool, str]:
    """What is in a clip's folder.

    Returns:
        The frames of its crops, and of those that are too small for an image or no files; whether
        audio is there; and a fingerprint of crops and audio by size and time.
    """
    numbers: list[int] = []
    unusable: list[int] = []
    files, has_audio = [], False
    with os.scandir(folder) as entries:
        for entry in entries:
            number = crop_number(entry.name)
            if number is None and entry.name != AUDIO:
                continue
            status = entry.stat() if _is_file(entry) else None
            if status is not None:
                files.append((entry.name, status.st_size, status.st_mtime_ns))
            if number is None:
                has_audio = status is not None
            elif status is None or status.st_size < MIN_JPEG_BYTES:
                unusable.append(number)
            else:
                numbers.append(number)
    digest = hashlib.blake2b(repr(sorted(files)).encode(), digest_size=8)
    return sorted(numbers), sorted(unusable), has_audio, digest.hexdigest()


@lru_cache(maxsize=1024)
def load_mel(folder: Path) -> np.ndarray:
    """The mel spectrogram of a clip, float32 (80, rows): computed once, then kept on disk.

    Raises:
        UserError: the clip has no audio that can be read.
    """
    sound, cache = folder / AUDIO, folder / MEL
    if cache.is_file() and sound.is_file() and cache.stat().st_mtime >= sound.stat().st_mtime:
        kept = _read_mel(cache)
        if kept is not None and kept.shape[1] == _rows_of_wav(sound, default=kept.shape[1]):
            return kept
        log.warning("%s: damaged, computed again", cache)
    mel = melspectrogram(load_audio(sound))
    with suppress(WriteError), atomic_write(cache) as partial:  # a data set may be read-only
        np.save(partial, mel)
    return mel


def _rows_of_wav(sound: Path, *, default: int) -> int:
    """The mel rows by the header of a 16 kHz mono WAV file; ``default`` for other files."""
    try:
        with wave.open(str(sound), "rb") as file:
            is_plain = (file.getframerate(), file.getnchannels()) == (SAMPLE_RATE, 1)
            return 1 + file.getnframes() // HOP if is_plain else default
    except (OSError, EOFError, wave.Error):
        return default


def _read_mel(path: Path) -> np.ndarray | None:
    """A spectrogram that was kept, or None if the file holds something else."""
    try:
        mel = np.load(path, allow_pickle=False)
    except Exception:  # NumPy raises many kinds for other files
        return None
    if not isinstance(mel, np.ndarray) or mel.dtype != np.float32:
        return None
    is_whole = mel.ndim == 2 and len(mel) == MEL_BANDS and bool((np.abs(mel) <= MEL_LIMIT).all())
    return mel if is_whole else None


class UnreadableSamples(UserError):
    """Samples of a batch whose crops or sound cannot be read."""

    def __init__(self, faults: dict[int, str]) -> None:
        """Name them.

        Args:
            faults: place in the batch → what is wrong, in one line that names the file.
        """
        super().__init__("; ".join(faults.values()))
        self.faults = faults


def load_crop(path: Path) -> np.ndarray:
    """A crop as the networks see it, uint8 (96, 96, 3) BGR; see ``read_crop``."""
    return cv2.resize(read_crop(path), (FACE_SIZE, FACE_SIZE))


def read_crop(path: Path) -> np.ndarray:
    """A crop in its own size, uint8 (h, w, 3) BGR.

    Raises:
        UserError: it cannot be read (from an OSError then), or is broken off.
    """
    try:
        content = read_bytes(path)
        if content.startswith(_JPEG_START) and _JPEG_END not in content[-_JPEG_TAIL_BYTES:]:
            raise UserError(f"{path}: broken off; delete it, or cut the clip anew")
        crop = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from error
    if crop is None:
        raise UserError(f"{path}: cannot be read as an image; delete it, or cut the clip anew")
    return crop


def readable_crops(folder: Path, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Those crops of a clip that are images, with their numbers; see ``read_crop``.

    Raises:
        UserError: none of them is, or the disk does not give one: it may another time.
    """
    count = 0
    for number in numbers:
        try:
            crop = read_crop(folder / f"{number}.jpg")
        except UserError as error:
            if isinstance(error.__cause__, OSError):
                raise
            continue
        count += 1
        yield number, crop
    if not count:
        raise UserError(f"{folder}: none of its {len(numbers)} crops is an image")


def load_crops(folder: Path, numbers: Sequence[int]) -> np.ndarray:
    """Crops as the networks see them, uint8 (len(numbers), 96, 96, 3) BGR.

    Raises:
        UserError: a crop cannot be read.
    """
    return np.stack([load_crop(folder / f"{number}.jpg") for number in numbers])


class ClipFiles:
    """Windows from the clips' own files: crops are decoded each time; see ``batches.Store``."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.folders = [clip.folder for clip in clips]

    def faces(self, clips: np.ndarray, starts: np.ndarray, *, lower: bool = False) -> torch.Tensor:
        """See ``batches.Store``."""
        windows, faults = [], {}
        for place, (clip, start) in enumerate(zip(clips.tolist(), starts.tolist(), strict=True)):
            try:
                frames = range(start, start + WINDOW_FRAMES)
                windows.append(load_crops(self.folders[clip], frames))
            except UserError as error:
                faults[place] = str(error)
        if faults:
            raise UnreadableSamples(faults)
        faces = torch.from_numpy(np.stack(windows))
        return faces[:, :, LOWER_HALF:].contiguous() if lower else faces

    def mels(self, clips: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """See ``batches.Store``."""
        windows, faults = [], {}
        for place, (clip, first_rows) in enumerate(zip(clips.tolist(), rows.tolist(), strict=True)):
            try:
                mel = load_mel(self.folders[clip])
                windows.append([mel[:, row : row + WINDOW_ROWS] for row in first_rows])
            except UserError as error:
                faults[place] = str(error)
        if faults:
            raise UnreadableSamples(faults)
        return torch.from_numpy(np.array(windows))

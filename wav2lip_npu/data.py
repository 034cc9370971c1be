"""Training windows: which there are, which one is drawn, and its pixels and mel rows."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm

from wav2lip_npu.audio import load_audio, melspectrogram
from wav2lip_npu.errors import UserError
from wav2lip_npu.windows import (
    FACE_SIZE,
    LOWER_HALF,
    WINDOW_FRAMES,
    WINDOW_ROWS,
    expert_row,
    generator_rows,
)

AUDIO = "audio.wav"  # in a clip's folder, beside the crops 0.jpg, 1.jpg …
MEL = "mel.npy"  # its mel spectrogram, kept
MIN_FRAMES = 3 * WINDOW_FRAMES + 1  # crops that a clip must have, as in the original

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A folder of crops and audio, and where windows may start in it."""

    folder: Path
    targets: np.ndarray  # frames from which five crops, and all their mel rows, are there
    windows: np.ndarray  # frames from which five crops are there


@dataclass(frozen=True, kw_only=True)
class Window:
    """One draw: the mel of ``target`` and, for the expert, its faces if ``matched``.

    ``other`` is another window of the clip: the expert's faces if not matched, and the generator's
    reference.
    """

    clip: Clip
    target: int
    other: int
    matched: bool


# Which mel windows a target needs, as their first rows; none if it cannot be a target.
MelRows = Callable[[int], list[int]]


def expert_mels(target: int) -> list[int]:
    """The expert hears one window."""
    return [expert_row(target)]


def generator_mels(target: int) -> list[int]:
    """The generator's expert hears one window, and the generator one for each frame."""
    return [expert_row(target), *generator_rows(target)] if target >= 1 else []


def read_clips(data_root: Path, filelist: Path, mel_rows: MelRows) -> list[Clip]:
    """The usable clips that a file list names; those that are not are logged with the reason.

    The mel spectrogram of every clip is computed here, once, and kept beside its audio.

    Args:
        data_root: what the list's lines are relative to.
        filelist: a clip's folder a line; where there is none of that name, what follows a space
            is ignored, as LRS2's lists need it.
        mel_rows: the speech that a target must have.

    Raises:
        UserError: no list, or no usable clip in it.
    """
    if not filelist.is_file():
        raise UserError(
            f"{filelist}: no such file; list there a clip's folder a line, relative to --data_root"
        )
    lines = filelist.read_text(encoding="utf-8").splitlines()
    folders = [_folder(data_root, line.strip()) for line in lines if line.strip()]

    def read(folder: Path) -> Clip | UserError:
        try:
            return _read_clip(folder, mel_rows)
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


def _read_clip(folder: Path, mel_rows: MelRows) -> Clip:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    crops = {int(path.stem) for path in folder.glob("*.jpg") if path.stem.isdecimal()}
    if len(crops) < MIN_FRAMES:
        raise UserError(f"{folder}: {len(crops)} crops, {MIN_FRAMES} are needed")
    last_row = load_mel(folder).shape[1] - WINDOW_ROWS
    windows = [s for s in sorted(crops) if crops.issuperset(range(s, s + WINDOW_FRAMES))]
    targets = [s for s in windows if (rows := mel_rows(s)) and max(rows) <= last_row]
    if not targets or len(windows) < 2:
        raise UserError(f"{folder}: no {WINDOW_FRAMES} crops in a row with speech to them")
    return Clip(folder=folder, targets=np.array(targets), windows=np.array(windows))


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
    partial = cache.with_name(f".{MEL}.{os.getpid()}.{threading.get_ident()}")
    try:
        with partial.open("wb") as file:
            np.save(file, mel)
        partial.replace(cache)
    except OSError:  # a read-only data set: computed again in every run
        partial.unlink(missing_ok=True)
    return mel


def load_faces(clip: Clip, start: int) -> np.ndarray:
    """Five crops as the networks see them, uint8 (5, 96, 96, 3) BGR.

    Raises:
        UserError: a crop cannot be decoded.
    """
    faces = []
    for number in range(start, start + WINDOW_FRAMES):
        path = clip.folder / f"{number}.jpg"
        crop = cv2.imread(str(path))
        if crop is None:
            raise UserError(f"{path}: cannot be read as an image; delete it, or cut the clip anew")
        faces.append(cv2.resize(crop, (FACE_SIZE, FACE_SIZE)))
    return np.stack(faces)


class WindowSampler:
    """Draws windows as a pure function of a seed and an item's number.

    The same items come whatever the number of workers and wherever a run is resumed.
    """

    def __init__(self, clips: list[Clip], seed: int) -> None:
        self.clips = clips
        self.seed = seed

    def window(self, item: int) -> Window:
        """A random window of a random clip."""
        return self._draw(item, None)

    def window_of_each(self, item: int) -> Window:
        """A random window of the clip whose turn it is: every clip comes equally often."""
        return self._draw(item, self.clips[item % len(self.clips)])

    def _draw(self, item: int, clip: Clip | None) -> Window:
        random = np.random.default_rng((self.seed, item))
        clip = clip or self.clips[random.integers(len(self.clips))]
        target = int(random.choice(clip.targets))
        other = int(random.choice(clip.windows[clip.windows != target]))
        return Window(clip=clip, target=target, other=other, matched=bool(random.integers(2)))


Item = dict[str, torch.Tensor]


def expert_item(window: Window) -> Item:
    """What the expert is trained on.

    Returns:
        "mel" (1, 80, 16) float32; "faces" (5, 48, 96, 3) uint8, lower halves; "label" () 1 or 0.
    """
    faces = load_faces(window.clip, window.target if window.matched else window.other)
    return {
        "mel": _mel_windows(window, expert_mels),
        "faces": torch.from_numpy(faces[:, LOWER_HALF:].copy()),
        "label": torch.tensor(float(window.matched)),
    }


def generator_item(window: Window) -> Item:
    """What the generator is trained on.

    Returns:
        "mel" (6, 80, 16) float32, the expert's window and then one for each frame;
        "target" and "reference" (5, 96, 96, 3) uint8.
    """
    return {
        "mel": _mel_windows(window, generator_mels),
        "target": torch.from_numpy(load_faces(window.clip, window.target)),
        "reference": torch.from_numpy(load_faces(window.clip, window.other)),
    }


def _mel_windows(window: Window, mel_rows: MelRows) -> torch.Tensor:
    mel = load_mel(window.clip.folder)
    rows = mel_rows(window.target)
    return torch.from_numpy(np.stack([mel[:, row : row + WINDOW_ROWS] for row in rows]))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a task is trained on: the speech that a target must have, and how an item is made."""

    mel_rows: MelRows
    load: Callable[[Window], Item]


EXPERT = Recipe(mel_rows=expert_mels, load=expert_item)
GENERATOR = Recipe(mel_rows=generator_mels, load=generator_item)


class WindowDataset(Dataset[Item]):
    """Items by number; any number is valid."""

    def __init__(self, draw: Callable[[int], Window], load: Callable[[Window], Item]) -> None:
        """Combine ``draw``, a method of a WindowSampler, with ``load``, a recipe's."""
        self.draw = draw
        self.load = load

    def __getitem__(self, item: int) -> Item:
        """Load item number ``item``."""
        return self.load(self.draw(item))


class Consecutive(Sampler[int]):
    """Every ``step``-th number from ``start`` up to ``stop``, or without end."""

    def __init__(self, start: int, stop: int | None = None, step: int = 1) -> None:
        self.start = start
        self.stop = stop
        self.step = step

    def __iter__(self) -> Iterator[int]:
        if self.stop is None:
            return count(self.start, self.step)
        return iter(range(self.start, self.stop, self.step))

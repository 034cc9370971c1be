"""What is seen and heard of each clip, by worker processes, which keep it beside its crops."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from face_detection.landmarks import FaceLandmarks
from wav2lip_npu.alignment.embedded import slide
from wav2lip_npu.alignment.expert import embed, open_expert
from wav2lip_npu.alignment.jumps import Segment, segments
from wav2lip_npu.alignment.lags import MAX_LAG
from wav2lip_npu.alignment.mouth import Talk, voice_features
from wav2lip_npu.constants import FACE_SIZE, WINDOW_FRAMES
from wav2lip_npu.data.clips import AUDIO, EXPERT, list_crops, load_crop, load_mel
from wav2lip_npu.data.kept import content_key, keep, read_kept
from wav2lip_npu.data.mouths import MAX_FRAMES, load_mouth
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import threads
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.files import file_state, sha256
from wav2lip_npu.runtime.workers import Worker, WorkerPool


@dataclass(frozen=True, kw_only=True)
class MouthReading:
    """A clip's mouth and voice."""

    talk: Talk
    sound: tuple[int, int]  # ``file_state`` of the sound, before it was read


@dataclass(frozen=True, kw_only=True)
class ExpertReading:
    """A clip as the expert judges it."""

    scores: np.ndarray  # (31,), see ``Slid``
    others: np.ndarray  # (16, 31)
    segments: list[Segment]
    sound: tuple[int, int]  # as above


class MouthWorker:
    """Finds mouths, in a process of its own."""

    def __init__(self, root: Path, workers: int) -> None:
        """Load the network; ``workers`` processes share the cores."""
        threads.limit_threads(workers)
        self._root = root
        self._landmarks = FaceLandmarks()

    def process(self, clip: str) -> MouthReading:
        """The mouth and the voice of a clip.

        Raises:
            UserError: it has no crops or no sound that can be read.
        """
        folder = self._root / clip
        sound = file_state(folder / AUDIO)
        mouth = load_mouth(folder, self._landmarks)
        voice = voice_features(load_mel(folder))[: MAX_FRAMES + MAX_LAG]
        load_mel.cache_clear()  # each clip is read once
        return MouthReading(talk=Talk(mouth=mouth, voice=voice), sound=sound)


@dataclass(frozen=True, kw_only=True)
class ExpertOptions:
    """What an ``ExpertWorker`` needs to know."""

    checkpoint: Path
    device: str
    precision: str
    strict_fp32: bool


class ExpertWorker:
    """Slides the expert over clips, in a process of its own."""

    def __init__(self, root: Path, options: ExpertOptions, workers: int, card_offset: int) -> None:
        """Load the expert.

        Args:
            root: of the clips.
            options: of all workers.
            workers: processes that share the cores.
            card_offset: how far this one's card is from the device of ``options``.

        Raises:
            UserError: it cannot be loaded.
        """
        threads.limit_threads(workers)
        self._root = root
        self._device = Device.open(
            options.device,
            options.precision,
            strict_fp32=options.strict_fp32,
            card_offset=card_offset,
        )
        self._expert = open_expert(options.checkpoint, self._device)
        self._judge = f"{sha256(options.checkpoint)} {self._device.dtype}"

    def process(self, clip: str) -> ExpertReading:
        """What the expert finds in a clip.

        Raises:
            UserError: it has no crops or no sound that can be read.
        """
        folder = self._root / clip
        sound = file_state(folder / AUDIO)
        key = content_key(folder, self._judge)
        arrays = read_kept(folder / EXPERT, key)
        if arrays is None:
            arrays = self._slide(folder)
            keep(folder / EXPERT, key, arrays)
        parts = [Segment(first=int(first), late=int(late)) for first, late in arrays["segments"]]
        return ExpertReading(
            scores=arrays["scores"], others=arrays["others"], segments=parts, sound=sound
        )

    def _slide(self, folder: Path) -> dict[str, np.ndarray]:
        faces, known = _read_crops(folder)
        mel = load_mel(folder)
        load_mel.cache_clear()
        slid = slide(embed(self._expert, faces, known, mel, self._device))
        parts = segments(slid.along_time, WINDOW_FRAMES)
        return {
            "scores": slid.scores,
            "others": slid.others,
            "segments": np.array([[one.first, one.late] for one in parts]),
        }


def _read_crops(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The crops of all frames, and for which frames there is one.

    Raises:
        UserError: there are none, or the disk does not give them.
    """
    numbers = [number for number in list_crops(folder) if number < MAX_FRAMES]
    frames = numbers[-1] + 1 if numbers else 0
    faces, known = np.zeros((frames, FACE_SIZE, FACE_SIZE, 3), np.uint8), np.zeros(frames, bool)
    for number in numbers:
        try:
            faces[number], known[number] = load_crop(folder / f"{number}.jpg"), True
        except UserError as error:
            if isinstance(error.__cause__, OSError):  # it may be read another time
                raise
    if not known.any():
        raise UserError(f"{folder}: none of its {len(numbers)} crops is an image")
    return faces, known


def read_clips(
    worker: type[Worker],
    arguments: Sequence[tuple[Any, ...]],
    clips: Sequence[str],
    stop: threading.Event,
    title: str,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read clips side by side.

    Args:
        worker: one of those above.
        arguments: what each process makes it of.
        clips: their names.
        stop: ends it early.
        title: of the progress bar.

    Returns:
        What was read, and for the other clips why not. Fewer if ``stop`` is set.
    """
    pool: WorkerPool[str] = WorkerPool(worker, arguments)
    for clip in clips:
        pool.submit(clip)
    readings: dict[str, Any] = {}
    faults: dict[str, str] = {}
    with (
        logging_redirect_tqdm(),
        tqdm(desc=title, total=len(clips), unit="clip", disable=None) as bar,
    ):
        try:
            for outcome in pool.outcomes(stop):
                if outcome.failure is None:
                    readings[outcome.job] = outcome.result
                else:
                    faults[outcome.job] = outcome.failure.reason
                bar.update()
        finally:
            pool.close()
    return readings, faults

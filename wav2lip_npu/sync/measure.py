"""What is seen and heard of each clip, by worker processes; and what follows from all of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from face_detection.landmarks import FaceLandmarks
from wav2lip_npu.alignment.comparison import MIN_CLIPS
from wav2lip_npu.alignment.lags import MAX_LAG, best_offset
from wav2lip_npu.alignment.mouth import Talk, mouth_scores, voice_features
from wav2lip_npu.data.clips import AUDIO, load_mel
from wav2lip_npu.data.mouths import MAX_FRAMES, load_mouth
from wav2lip_npu.runtime import threads
from wav2lip_npu.runtime.files import file_state
from wav2lip_npu.runtime.workers import WorkerPool

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read of a clip."""

    talk: Talk
    sound: tuple[int, int]  # ``file_state`` of the sound, before it was read


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The offset of a clip."""

    offset: float | None  # frames by which the sound comes late; None: nothing to compare
    confidence: float  # standard deviations above what other clips' sound gives


class MouthWorker:
    """Reads clips, in a process of its own."""

    def __init__(self, root: Path, workers: int) -> None:
        """Load the network; ``workers`` processes share the cores."""
        threads.limit_threads(workers)
        self._root = root
        self._landmarks = FaceLandmarks()

    def process(self, clip: str) -> Reading:
        """The mouth and the voice of a clip.

        Raises:
            UserError: it has no crops or no sound that can be read.
        """
        folder = self._root / clip
        sound = file_state(folder / AUDIO)
        mouth = load_mouth(folder, self._landmarks)
        voice = voice_features(load_mel(folder))[: MAX_FRAMES + MAX_LAG]
        load_mel.cache_clear()  # each clip is read once
        return Reading(talk=Talk(mouth=mouth, voice=voice), sound=sound)


def read_clips(
    root: Path, clips: Iterable[str], workers: int, stop: threading.Event
) -> tuple[dict[str, Reading], dict[str, str]]:
    """Read clips side by side.

    Returns:
        Those that could be read, and for the others why not. Fewer if ``stop`` is set.
    """
    names = list(clips)
    pool: WorkerPool[str] = WorkerPool(MouthWorker, [(root, workers)] * workers)
    for name in names:
        pool.submit(name)
    readings, faults = {}, {}
    with logging_redirect_tqdm(), tqdm(total=len(names), unit="clip", disable=None) as bar:
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


def measure(readings: Mapping[str, Reading]) -> dict[str, Measured]:
    """The offset of each clip, by its mouth; all clips help to find it."""
    if len(readings) < MIN_CLIPS:
        log.warning(
            "%d clips are too few to learn from, %d are needed: offsets are by loudness alone, and "
            "all clips count as unclear",
            len(readings), MIN_CLIPS,
        )  # fmt: skip
    names = sorted(readings)
    log.info("comparing %d clips", len(names))
    scores, confidence = mouth_scores([readings[name].talk for name in names])
    return {
        name: Measured(offset=_rounded(one), confidence=round(float(sure), 2))
        for name, one, sure in zip(names, scores, confidence, strict=True)
    }


def _rounded(scores: np.ndarray) -> float | None:
    return None if np.isnan(scores).any() else round(best_offset(scores), 2)

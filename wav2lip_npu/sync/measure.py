"""What is seen and heard of each clip, by worker processes; and what follows from all of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from face_detection.landmarks import FaceLandmarks
from wav2lip_npu.alignment.lags import best_offset
from wav2lip_npu.alignment.mouth import MIN_CLIPS, Talk, mouth_scores, voice_features
from wav2lip_npu.data.clips import load_mel
from wav2lip_npu.data.mouths import load_mouth
from wav2lip_npu.runtime import threads
from wav2lip_npu.runtime.workers import WorkerPool

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The offset of a clip."""

    offset: float  # frames by which the sound comes late
    confidence: float  # standard deviations above what other clips' sound gives


class MouthWorker:
    """Reads clips, in a process of its own."""

    def __init__(self, root: Path, workers: int) -> None:
        """Load the network; ``workers`` processes share the cores."""
        threads.limit_threads(workers)
        self._root = root
        self._landmarks = FaceLandmarks()

    def process(self, clip: str) -> Talk:
        """The mouth and the voice of a clip.

        Raises:
            UserError: it has no crops or no sound that can be read.
        """
        folder = self._root / clip
        mouth = load_mouth(folder, self._landmarks)
        load_mel.cache_clear()  # the sound may be another one now
        return Talk(mouth=mouth, voice=voice_features(load_mel(folder)))


def read_talks(
    root: Path, clips: Iterable[str], workers: int, stop: threading.Event
) -> tuple[dict[str, Talk], dict[str, str]]:
    """Read clips side by side.

    Returns:
        Those that could be read, and for the others why not. Fewer if ``stop`` is set.
    """
    names = list(clips)
    pool: WorkerPool[str] = WorkerPool(MouthWorker, [(root, workers)] * workers)
    for name in names:
        pool.submit(name)
    talks, faults = {}, {}
    with logging_redirect_tqdm(), tqdm(total=len(names), unit="clip", disable=None) as bar:
        try:
            for outcome in pool.outcomes(stop):
                if outcome.failure is None:
                    talks[outcome.job] = outcome.result
                else:
                    faults[outcome.job] = outcome.failure.reason
                bar.update()
        finally:
            pool.close()
    return talks, faults


def measure(talks: Mapping[str, Talk]) -> dict[str, Measured]:
    """The offset of each clip, by its mouth; all clips help to find it."""
    if len(talks) < MIN_CLIPS:
        log.warning(
            "%d clips are too few to learn from (%d are needed): offsets are by loudness alone, "
            "and no clip is certain",
            len(talks), MIN_CLIPS,
        )  # fmt: skip
    names = sorted(talks)
    if not names:
        return {}
    scores, confidence = mouth_scores([talks[name] for name in names])
    return {
        name: Measured(offset=round(best_offset(one).frames, 2), confidence=round(float(sure), 2))
        for name, one, sure in zip(names, scores, confidence, strict=True)
    }

"""What is seen and heard of each clip, by worker processes, which keep it beside its crops."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from face_detection.landmarks import FaceLandmarks
from wav2lip_npu.alignment.embedded import OTHER_SOUNDS, Embedded, slide
from wav2lip_npu.alignment.jumps import Segment, segments
from wav2lip_npu.alignment.lags import MAX_LAG
from wav2lip_npu.alignment.mouth import Talk, voice_features
from wav2lip_npu.console.progress import Progress
from wav2lip_npu.constants import WINDOW_FRAMES
from wav2lip_npu.data.clips import AUDIO, EXPERT, load_mel
from wav2lip_npu.data.kept import content_key, keep, read_kept
from wav2lip_npu.data.mouths import MAX_FRAMES, load_mouth
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import threads
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.files import file_state, sha256
from wav2lip_npu.runtime.workers import Worker, WorkerPool
from wav2lip_npu.sync.embedders import open_embedder

log = logging.getLogger(__name__)

MAX_OTHER_FRAMES = 1500  # of another clip's sound, one minute


@dataclass(frozen=True, kw_only=True)
class MouthReading:
    """A clip's mouth and voice."""

    talk: Talk
    sound: tuple[int, int]  # ``file_state`` of the sound, before it was read


@dataclass(frozen=True, kw_only=True)
class ExpertReading:
    """What the expert finds in a clip."""

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
    others: tuple[str, ...]  # clips whose sound tells what chance gives, see ``other_clips``
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
        device = Device.open(
            options.device,
            options.precision,
            strict_fp32=options.strict_fp32,
            card_offset=card_offset,
        )
        self._embedder = open_embedder(options.checkpoint, device)
        self._others = options.others
        self._sounds: dict[str, torch.Tensor] = {}  # of the others, once they are needed
        # Not the state of the others' sounds: chance is the same when they are shifted.
        self._name = f"{sha256(options.checkpoint)} {device.dtype} {self._others}"

    def process(self, clip: str) -> ExpertReading:
        """What the expert finds in a clip.

        Raises:
            UserError: it has no crops or no sound that can be read.
        """
        folder = self._root / clip
        sound = file_state(folder / AUDIO)
        key = content_key(folder, self._name)
        arrays = read_kept(folder / EXPERT, key)
        if arrays is None:
            arrays = self._slide(clip)
            keep(folder / EXPERT, arrays, key)
        parts = [Segment(first=int(first), late=int(late)) for first, late in arrays["segments"]]
        return ExpertReading(
            scores=arrays["scores"], others=arrays["others"], segments=parts, sound=sound
        )

    def _slide(self, clip: str) -> dict[str, np.ndarray]:
        folder = self._root / clip
        embedded = Embedded(
            faces=self._embedder.embed_faces(folder), sound=self._embedder.embed_sound(folder)
        )
        slid = slide(embedded, [self._sound(other) for other in self._others if other != clip])
        parts = segments(slid.along_time, WINDOW_FRAMES)
        return {
            "scores": slid.scores,
            "others": slid.others,
            "segments": np.array([[one.first, one.late] for one in parts]),
        }

    def _sound(self, clip: str) -> torch.Tensor:
        """The sound of another clip; none if it cannot be read."""
        if clip not in self._sounds:
            self._sounds[clip] = torch.zeros(0, 1)
            with suppress(UserError):
                self._sounds[clip] = self._embedder.embed_sound(self._root / clip)[
                    :MAX_OTHER_FRAMES
                ]
        return self._sounds[clip]


def other_clips(clips: Iterable[str]) -> tuple[str, ...]:
    """Some clips, hardly others when there are a few more clips: so what is kept stays valid."""
    by_digest = sorted(clips, key=lambda clip: hashlib.sha256(os.fsencode(clip)).digest())
    return tuple(by_digest[: OTHER_SOUNDS + 1])  # one may be the clip itself


def read_side_by_side(
    worker: type[Worker],
    arguments: Sequence[tuple[Any, ...]],
    clips: Sequence[str],
    stop: threading.Event,
    title: str,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read clips in several processes. What may pass is tried once more.

    Args:
        worker: one of those above.
        arguments: what each process makes it of.
        clips: their names.
        stop: ends it early.
        title: of the progress.

    Returns:
        What was read, and for the other clips why not. Fewer if ``stop`` is set.
    """
    pool: WorkerPool[str] = WorkerPool(worker, arguments)
    for clip in clips:
        pool.submit(clip)
    readings: dict[str, Any] = {}
    faults: dict[str, str] = {}
    with Progress(title, "clip", len(clips)) as progress:
        try:
            for outcome in pool.outcomes(stop):
                if outcome.failure is None:
                    readings[outcome.job] = outcome.result
                elif pool.try_again(outcome, outcome.job):
                    continue
                else:
                    log.warning("%s: %s", outcome.job, outcome.failure.reason)
                    faults[outcome.job] = outcome.failure.reason
                progress.update()
        finally:
            pool.close()
    return readings, faults

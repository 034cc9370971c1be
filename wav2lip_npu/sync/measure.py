"""The offset of each clip: by its mouth, by the expert, or by both."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wav2lip_npu.alignment.comparison import MIN_CLIPS, Comparison, fuse_scores
from wav2lip_npu.alignment.jumps import Segment, segments
from wav2lip_npu.alignment.lags import best_offset
from wav2lip_npu.alignment.mouth import (
    FRAMES_THAT_OVERLAP,
    Predicted,
    along_time,
    compare_mouths,
    predict_mouths,
)
from wav2lip_npu.config import SyncConfig
from wav2lip_npu.runtime import threads
from wav2lip_npu.sync.workers import (
    ExpertOptions,
    ExpertReading,
    ExpertWorker,
    MouthReading,
    MouthWorker,
    read_side_by_side,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What was read of clips that can be read."""

    clips: list[str]  # sorted
    faults: dict[str, str]  # of the others, why not
    mouths: dict[str, MouthReading] = field(default_factory=dict)  # empty unless asked for
    by_expert: dict[str, ExpertReading] = field(default_factory=dict)  # the same

    def sound(self, clip: str) -> tuple[int, int]:
        """``file_state`` of a clip's sound, before it was read."""
        return (self.mouths or self.by_expert)[clip].sound


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The offset of a clip."""

    offset: float | None  # frames by which the sound comes late; None: nothing to compare
    confidence: float  # standard deviations above what sound that is not the clip's gives
    segments: list[Segment]  # more than one if the sound jumps


def read(
    config: SyncConfig, clips: Sequence[str], others: tuple[str, ...], stop: threading.Event
) -> Readings:
    """Read clips side by side; what was read of each is kept beside its crops.

    Args:
        config: the options.
        clips: which.
        others: see ``other_clips``.
        stop: ends it early.

    Returns:
        Fewer clips if ``stop`` is set.
    """
    mouths: dict[str, MouthReading] = {}
    by_expert: dict[str, ExpertReading] = {}
    faults: dict[str, str] = {}
    root = config.data_root
    if config.by_mouth:
        workers = min(config.num_workers or threads.share_of_cores(), len(clips))
        arguments = [(root, workers)] * workers
        mouths, faults = read_side_by_side(MouthWorker, arguments, clips, stop, "mouths")
        clips = [clip for clip in clips if clip in mouths]
    if config.by_expert and clips:
        assert config.syncnet_checkpoint_path is not None
        options = ExpertOptions(
            checkpoint=config.syncnet_checkpoint_path,
            others=others,
            device=config.device,
            precision=config.precision,
            strict_fp32=config.strict_fp32,
        )
        cards = config.cards
        arguments_by_card = [(root, options, len(cards), card) for card in cards]
        by_expert, more_faults = read_side_by_side(
            ExpertWorker, arguments_by_card, clips, stop, "expert"
        )
        faults = {**faults, **more_faults}
        clips = [clip for clip in clips if clip in by_expert]
    return Readings(clips=sorted(clips), faults=faults, mouths=mouths, by_expert=by_expert)


def measure(readings: Readings) -> dict[str, Measured]:
    """The offset of each clip; all clips help to find it."""
    clips = readings.clips
    log.info("comparing %d clips", len(clips))
    comparisons: list[Comparison] = []
    predicted: Predicted | None = None
    if readings.mouths:
        predicted = predict_mouths([readings.mouths[clip].talk for clip in clips])
        comparisons.append(compare_mouths(predicted))
    if readings.by_expert:
        comparisons.append(_compare_by_expert([readings.by_expert[clip] for clip in clips]))
    is_known = True
    if readings.mouths and len(clips) < MIN_CLIPS:
        is_known = bool(readings.by_expert)
        comparisons = comparisons[-1:]
        log.warning(
            "%d clips are too few to learn from, %d are needed: offsets are by %s",
            len(clips), MIN_CLIPS,
            "the expert alone" if is_known else "loudness alone, and all clips count as unclear",
        )  # fmt: skip
    scores, confidence = fuse_scores(comparisons)
    return {
        clip: Measured(
            offset=None if np.isnan(scores[place]).any() else round(best_offset(scores[place]), 2),
            confidence=round(float(confidence[place]), 2) if is_known else 0.0,
            segments=_segments(readings, predicted, place) if is_known else [],
        )
        for place, clip in enumerate(clips)
    }


def _compare_by_expert(found: Sequence[ExpertReading]) -> Comparison:
    return Comparison(
        scores=np.stack([one.scores for one in found]),
        others=np.stack([one.others for one in found], axis=1),
    )


def _segments(readings: Readings, predicted: Predicted | None, place: int) -> list[Segment]:
    """By the expert if there is one: it tells more of each frame."""
    if readings.by_expert:
        return readings.by_expert[readings.clips[place]].segments
    assert predicted is not None
    return segments(along_time(predicted, place), FRAMES_THAT_OVERLAP)
